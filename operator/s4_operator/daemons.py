"""Calls on the daemons of a cluster: their admin port, and S3 as a client would. Signed with the operator's own
keys."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import aiohttp
import msgspec
from yarl import URL

from s4.cluster.recovery import Recovery
from s4.cluster.status import ClusterStatus
from s4.s3 import cors, encryption, lifecycle, lock, sigv4
from s4.s3.xml import document
from s4_operator.kube import why

CALL_S = 10.0
AT_ONCE = 16  # deletions: all calls on all clusters share a hundred connections
CHECK_BUCKET, CHECK_KEY = "s4-operator-check", "ready"


class DaemonError(Exception):
    """A daemon refused, or none answers. `status` is the HTTP status, 0 for no answer; `code` the S3 error code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True, slots=True)
class Door:
    """How an admin port is spoken to: it shows a certificate of the cluster's authority, for `name`. One of 0.7 speaks
    no TLS and takes signatures for S3: that is tried only where `old` says that such a daemon may be there."""

    trust: ssl.SSLContext
    name: str
    old: bool


class Daemons:
    """The daemons of one cluster. `admins` are HOST:PORT of admin ports, of which any that answers will do. With
    `door` they speak TLS."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        admins: Sequence[str],
        endpoint: str,
        region: str,
        access: str,
        secret: str,
        trust: ssl.SSLContext | None = None,
        door: Door | None = None,
    ) -> None:
        self._session, self._admins, self._endpoint, self._region = session, list(admins), endpoint, region
        self._access, self._secret, self._trust, self._door = access, secret, trust, door

    def as_user(self, access: str, secret: str) -> Daemons:
        """The same daemons with the keys of somebody else."""
        return Daemons(
            self._session, self._admins, self._endpoint, self._region, access, secret, self._trust, self._door
        )

    # -- the admin port

    async def status(self) -> ClusterStatus:
        return msgspec.convert(await self.admin("GET", "/status"), ClusterStatus)

    async def recovery(self, given_up: Iterable[str]) -> Recovery:
        """What can be made of a map that was lost; daemons of 0.7 cannot."""
        query = "&".join(f"lost={quote(store, safe='')}" for store in sorted(given_up))
        try:
            return msgspec.convert(await self.admin("GET", f"/cluster/recovery?{query}"), Recovery)
        except DaemonError as error:
            if error.status not in (404, 405):
                raise
            return Recovery()

    async def is_safe_to_stop(self, *stores: str) -> list[str]:
        """Why stores may not be stopped together now; empty where they may."""
        query = "&".join(f"store={quote(store, safe='')}" for store in stores)
        found = await self.admin("GET", f"/cluster/safe-to-stop?{query}")
        return list(found["reasons"])

    async def put_user(self, name: str, grants: list[str]) -> None:
        """Have a user with these grants, new or not."""
        path = f"/users/{quote(name, safe='')}"
        try:
            await self.admin("PUT", path, {"grants": grants})
        except DaemonError as error:
            if error.status != 404:
                raise
            await self.admin("PUT", path, {"grants": grants, "create": True})

    async def enable_user(self, name: str, *, enabled: bool) -> None:
        """Whether a user is let in at all, by keys or by sessions."""
        await self.admin("PUT", f"/users/{quote(name, safe='')}", {"enabled": enabled})

    async def put_key(self, user: str, access: str, secret: str) -> None:
        """Have a key of a user work; that it is there already is success."""
        await self.admin("POST", f"/users/{quote(user, safe='')}/keys", {"access_key": access, "secret_key": secret})

    async def delete_key(self, user: str, access: str) -> None:
        await self._gone(self.admin("DELETE", f"/users/{quote(user, safe='')}/keys/{quote(access, safe='')}"))

    async def delete_user(self, name: str) -> None:
        await self._gone(self.admin("DELETE", f"/users/{quote(name, safe='')}"))

    async def users(self) -> dict[str, list[str]]:
        """Access keys by user."""
        return {one["name"]: one["access_keys"] for one in (await self.admin("GET", "/users"))["users"]}

    async def put_provider(self, url: str, client: str, keys: str) -> str:
        """Have web identities of an issuer, https://URL, be taken for an audience, signed with these keys; its ARN."""
        said = await self.admin("PUT", "/providers", {"url": url, "client": client, "keys": keys})
        return str(said["arn"])

    async def drop_provider(self, url: str, client: str) -> None:
        """Have them not be taken for that audience."""
        await self.admin("DELETE", "/providers", {"url": url, "client": client})

    async def put_policy(self, user: str, name: str, policy: dict[str, object]) -> None:
        """Have a user have an inline policy."""
        await self.iam(
            "PutUserPolicy", UserName=user, PolicyName=name, PolicyDocument=json.dumps(policy, separators=(",", ":"))
        )

    async def delete_policy(self, user: str, name: str) -> None:
        await self._gone(self.iam("DeleteUserPolicy", UserName=user, PolicyName=name))

    @staticmethod
    async def _gone(call: Any) -> None:
        try:
            await call
        except DaemonError as error:
            if error.status != 404:
                raise

    async def admin(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One call on the first admin port that answers. Raises DaemonError."""
        raw = json.dumps(body).encode() if body is not None else b""
        last = DaemonError(0, "", "the cluster has no daemon that runs")
        for host in self._admins:
            try:
                status, answer = await self._knock(host, method, f"/admin/v1{path}", raw)
            except DaemonError as error:
                last = error
                continue
            value = _refusal(answer) if status >= 400 else json.loads(answer.strip() or b"{}")
            if status >= 500:
                last = DaemonError(status, str(value.get("error", "")), str(value.get("message", "")))
                continue
            if status >= 400:
                raise DaemonError(status, str(value.get("error", "")), str(value.get("message", status)))
            return dict(value)
        raise last

    async def _knock(self, host: str, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        if self._door is None:
            return await self._send(f"http://{host}", method, target, body, sigv4.ADMIN)
        try:
            return await self._send(f"https://{host}", method, target, body, sigv4.ADMIN)
        except DaemonError as error:
            if (
                not self._door.old or type(error.__cause__) is not aiohttp.ClientConnectorSSLError
            ):  # of another authority, or away
                raise
        return await self._send(f"http://{host}", method, target, body)

    # -- IAM

    async def iam(self, action: str, **fields: str) -> bytes:
        """The answer's body. Raises DaemonError."""
        body = urlencode({"Action": action, "Version": "2010-05-08", **fields}).encode()
        return _checked(action, *await self._send(self._endpoint, "POST", "/", body, "iam"))

    # -- S3

    async def check(self) -> None:
        """Write an object and read it back, through the Service that users use. Raises DaemonError."""
        data = f"{time.time()}".encode() * 500  # large enough for shards of its own
        await self.make_bucket(CHECK_BUCKET)
        await self.s3("PUT", f"/{CHECK_BUCKET}/{CHECK_KEY}", data)
        if await self.s3("GET", f"/{CHECK_BUCKET}/{CHECK_KEY}") != data:
            raise DaemonError(0, "", "the object that came back is not the one that was written")

    async def make_bucket(self, name: str) -> bool:
        """Whether the bucket was made now; it may be there already. Raises DaemonError."""
        try:
            await self.s3("HEAD", f"/{name}")
        except DaemonError as error:
            if error.status != 404:
                raise
        else:
            return False
        await self.s3("PUT", f"/{name}")
        return True

    async def set_versioning(self, name: str, state: str) -> None:
        """`state` is Enabled or Suspended. Asked first: a change has every partition told."""
        if f"<Status>{state}</Status>".encode() in await self.s3("GET", f"/{name}?versioning="):
            return
        body = f"<VersioningConfiguration><Status>{state}</Status></VersioningConfiguration>".encode()
        await self.s3("PUT", f"/{name}?versioning=", body)

    async def put_quota(self, name: str, size_bytes: int) -> None:
        """0 is no bound."""
        await self.admin("PUT", f"/buckets/{quote(name, safe='')}/quota", {"bytes": size_bytes})

    async def put_rate(self, name: str, requests: int, size_bytes: int) -> None:
        """Of a bucket a second; 0 leaves it to the rates that all buckets have."""
        await self.admin(
            "PUT", f"/buckets/{quote(name, safe='')}/rate", {"requests_per_s": requests, "bytes_per_s": size_bytes}
        )

    async def put_cors(self, name: str, rules: Sequence[cors.CorsRule]) -> None:
        """Without rules there are none afterwards."""
        if rules:
            await self.s3("PUT", f"/{name}?cors=", document("CORSConfiguration", cors.to_xml(rules)))
        else:
            await self.s3("DELETE", f"/{name}?cors=")

    async def put_lifecycle(self, name: str, rules: Sequence[lifecycle.Rule]) -> None:
        """Without rules there are none afterwards."""
        if rules:
            await self.s3("PUT", f"/{name}?lifecycle=", document("LifecycleConfiguration", lifecycle.to_xml(rules)))
        else:
            await self.s3("DELETE", f"/{name}?lifecycle=")

    async def put_encryption(self, name: str, default: encryption.Default | None) -> None:
        """How what comes is encrypted; None leaves that to requests."""
        if default is not None:
            await self.s3(
                "PUT",
                f"/{name}?encryption=",
                document("ServerSideEncryptionConfiguration", encryption.default_to_xml(default)),
            )
        else:
            await self.s3("DELETE", f"/{name}?encryption=")

    async def put_lock(self, name: str, default: lock.Default | None) -> None:
        """Object lock, with versioning, for good; with a default retention or none. Asked first, as versioning is."""
        wanted = document("ObjectLockConfiguration", lock.default_to_xml(default))
        try:
            if await self.s3("GET", f"/{name}?object-lock=") == wanted:
                return
        except DaemonError as error:
            if error.code != "ObjectLockConfigurationNotFoundError":
                raise
        await self.set_versioning(name, "Enabled")
        await self.s3("PUT", f"/{name}?object-lock=", wanted)

    async def empty_bucket(self, name: str) -> None:
        """Delete every version and every upload of a bucket."""
        while True:
            page = ElementTree.fromstring(await self.s3("GET", f"/{name}?max-keys=1000&versions="))  # noqa: S314 - our own daemons' answer
            found = [one for one in page.iter() if _tag(one) in ("Version", "DeleteMarker")]
            if not found:
                break
            for start in range(0, len(found), AT_ONCE):
                some = found[start : start + AT_ONCE]
                await asyncio.gather(*(self._delete(name, _text(one, "Key"), _text(one, "VersionId")) for one in some))
        page = ElementTree.fromstring(await self.s3("GET", f"/{name}?uploads="))  # noqa: S314 - as above
        for one in page.iter():
            if _tag(one) == "Upload":
                key, upload = quote(_text(one, "Key"), safe="/~"), quote(_text(one, "UploadId"), safe="~")
                await self.s3("DELETE", f"/{name}/{key}?uploadId={upload}")

    async def _delete(self, bucket: str, key: str, version: str) -> None:
        await self.s3("DELETE", f"/{bucket}/{quote(key, safe='/~')}?versionId={quote(version, safe='~')}")

    async def delete_bucket(self, name: str) -> None:
        await self._gone(self.s3("DELETE", f"/{name}"))

    async def s3(self, method: str, target: str, body: bytes = b"") -> bytes:
        """The answer's body. Raises DaemonError."""
        return _checked(f"{method} {target.partition('?')[0]}", *await self._send(self._endpoint, method, target, body))

    async def _send(self, base: str, method: str, target: str, body: bytes, service: str = "s3") -> tuple[int, bytes]:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": base.partition("//")[2], "x-amz-content-sha256": digest, "x-amz-date": stamp}
        if service == "iam":
            headers["content-type"] = "application/x-www-form-urlencoded"
        headers["authorization"] = sigv4.authorization(
            self._access, self._secret, self._region, method, target, headers, service
        )
        door = self._door if service == sigv4.ADMIN else None
        try:
            async with self._session.request(
                method,
                URL(base + target, encoded=True),
                data=body,
                headers=headers,
                ssl=door.trust if door is not None else self._trust or True,
                server_hostname=door.name if door is not None else None,
                timeout=aiohttp.ClientTimeout(total=CALL_S),
            ) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DaemonError(0, "", f"{base} does not answer: {why(error, CALL_S)}") from error


def _refusal(answer: bytes) -> dict[str, Any]:
    """What an admin port says no in; of 0.7 text, where it knows no such call."""
    try:
        value = json.loads(answer)
    except ValueError:
        value = {}
    return value if isinstance(value, dict) and value else {"message": answer.decode(errors="replace").strip()[:300]}


def _checked(what: str, status: int, answer: bytes) -> bytes:
    """The answer of S3 or IAM, if it is none of their errors. Raises DaemonError."""
    if status < 400:
        return answer
    code = message = ""
    if answer.lstrip().startswith(b"<"):
        error = ElementTree.fromstring(answer)  # noqa: S314 - our own daemons' answer
        code, message = next(parts(error, "Code"), ""), next(parts(error, "Message"), "")
    raise DaemonError(status, code, f"{what} was answered {status} {code} {message}".strip())


def parts(element: ElementTree.Element, name: str) -> Iterator[str]:
    """The texts of all elements of a name, wherever they are."""
    return (one.text or "" for one in element.iter() if _tag(one) == name)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: ElementTree.Element, name: str) -> str:
    return next((one.text or "" for one in element if _tag(one) == name), "")
