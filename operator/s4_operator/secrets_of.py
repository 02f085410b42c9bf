"""The Secrets of a cluster: made where they are missing or due, and read back. Each is written whole or not at all.

The daemons' own root keys are made once and known to nobody else; what people use are keys of users, so that a
changed Secret of theirs restarts no pod and locks nobody out.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import ssl
import time
from dataclasses import dataclass
from typing import Any

from s4.crypto.roles import GATEWAY, NODE, S3, uri
from s4_operator import certificates, issued
from s4_operator.certificates import Pair
from s4_operator.kube import Kube, KubeError
from s4_operator.manifests import Builder
from s4_operator.pods import Object

READ_AGAIN_S = 10.0
CLUSTER = "cluster"  # the cluster's id, in the Secret of the master key


class LostError(KubeError):
    """A Secret is not there that data cannot be read without."""

    def __init__(self, name: str) -> None:
        super().__init__(
            409,
            f"the Secret {name} is gone or has no key, and there is data that only that key serves: put it back from a "
            "backup; pods that still run have it, and `s4 admin backup-keys` in one of them takes it out",
        )


@dataclass(frozen=True, slots=True)
class Keys:
    access: str
    secret: str


@dataclass(frozen=True, slots=True)
class Trusted:
    """What the operator needs to talk to a cluster. `problem` says what is wrong with certificates, or nothing.
    `others`: pods have an S3 certificate, or are to have one, that is not of the cluster's own authority, and `ca` are
    the authorities beside these in their Secrets. `waits`: cert-manager is to make one, and has not."""

    root: Keys
    authority: str
    admin: Keys | None
    problem: str = ""
    cluster: str = ""  # its id
    ca: tuple[str, ...] = ()
    waits: bool = False
    others: bool = False


def trusted_by(trusted: Trusted) -> ssl.SSLContext:
    """Whom the operator believes at the S3 port: the cluster's own authority; with `others` the system's and the
    Secrets' too, for pods may have either certificate."""
    if not trusted.others:
        return ssl.create_default_context(cadata=trusted.authority)
    made = ssl.create_default_context()
    for one in (trusted.authority, *trusted.ca):
        with contextlib.suppress(ssl.SSLError, ValueError):  # what is wrong with it shows where it is needed
            made.load_verify_locations(cadata=one.encode("ascii", "ignore").decode())  # beside PEM there may be remarks
    return made


def read(value: Object | None) -> dict[str, str]:
    """What of a Secret's data is text; {} where there is none. Others may put anything there."""
    found = {}
    for name, part in ((value or {}).get("data") or {}).items():
        with contextlib.suppress(UnicodeDecodeError):
            found[name] = base64.b64decode(part).decode()
    return found


def new_keys() -> Keys:
    return Keys("S4" + secrets.token_hex(9).upper(), secrets.token_urlsafe(30))


class Secrets:
    """Keeps the Secrets of clusters. They are read by name: who may list or watch Secrets may read all of them."""

    def __init__(self, kube: Kube, leaf_s: float = certificates.LEAF_S) -> None:
        self._kube, self._leaf_s = kube, leaf_s
        self._seen: dict[tuple[str, str], tuple[float, Object | None]] = {}  # by cluster's uid and name: when, and what

    async def ensure(
        self, builder: Builder, now_s: float, shards: Object | None = None, mounted: frozenset[str] = frozenset()
    ) -> Trusted:
        """`shards` is the cluster's ShardMap, if there is one; `mounted` are Secrets that its pods have S3 certificates
        from now. Raises LostError, KubeError."""
        names, spec = builder.names, builder.spec
        root = await self._root(builder)
        cluster = await self._master(builder, str(shards["spec"]["cluster"]) if shards is not None else "")
        for name in ("root", "master"):
            await self._reclaim(builder, names[name])
        authority = await self._authority(builder, now_s)
        hosts = [f"*.{names['nodes']}.{builder.namespace}.svc"]
        for name, role in (("peers", NODE), ("gateway peers", GATEWAY)):
            await self._leaf(builder, names[name], authority, [*hosts, uri(role)], now_s)
        served = await self._served(builder, authority, mounted, now_s)
        if spec.credentialsSecretRef is None:
            admin: Keys | None = await self._once(builder, names["credentials"])
        else:
            found = read(await self._kube.get("Secret", builder.namespace, spec.credentialsSecretRef.name))
            admin = Keys(found["accessKey"], found["secretKey"]) if {"accessKey", "secretKey"} <= set(found) else None
        return Trusted(root, authority.certificate, admin, cluster=cluster, **served)

    async def _read(self, builder: Builder, name: str) -> dict[str, str]:
        """Of a Secret that was made for this cluster, as it was a moment ago. One that somebody put there before is
        neither used nor changed: who made it knows what is in it. Raises TakenError."""
        at, value = self._seen.get((builder.uid, name), (-READ_AGAIN_S, None))
        if value is None or time.monotonic() - at > READ_AGAIN_S:
            value = await self._kube.ours(builder.secret(name, {}))
            self._keep(builder, name, value)
        return read(value)

    def _keep(self, builder: Builder, name: str, value: Object | None) -> None:
        now = time.monotonic()
        for key in [key for key, (at, _) in self._seen.items() if now - at > READ_AGAIN_S]:
            del self._seen[key]
        self._seen[builder.uid, name] = now, value

    async def _write(self, builder: Builder, name: str, data: dict[str, str], kind: str = "Opaque") -> None:
        self._keep(builder, name, await self._kube.have(builder.secret(name, data, kind)))

    async def _may_make(self, builder: Builder, name: str) -> None:
        """Raises LostError where there is data already: another key would be one that opens none of it."""
        shards = await self._kube.get("ShardMap", builder.namespace, builder.names["map"])
        if shards is not None and (shards.get("status") or {}).get("partitions"):
            raise LostError(name)

    async def _master(self, builder: Builder, known: str) -> str:
        """What the users' secrets are sealed with: made once, never changed, and kept as long as the data is. With it
        the cluster's id, which is `known` where there is a map: under another its volumes are somebody else's (M3)."""
        name = builder.names["master"]
        found = await self._read(builder, name)
        identity = known or found.get(CLUSTER) or await self._identity(builder)
        if "master.key" in found:
            if found.get(CLUSTER) != identity:
                change = {"data": {CLUSTER: base64.b64encode(identity.encode()).decode()}}
                self._keep(builder, name, await self._kube.patch("Secret", builder.namespace, name, change))
            return identity
        await self._may_make(builder, name)
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        made = builder.secret(name, {"master.key": key, CLUSTER: identity})
        if builder.spec.storage.reclaim != "Delete":
            del made["metadata"]["ownerReferences"]
        try:
            self._keep(
                builder, name, await self._kube.create(made)
            )  # not applied: that of an operator that was a moment earlier stays
        except KubeError as error:
            if error.status != 409:
                raise
        return identity

    async def _identity(self, builder: Builder) -> str:
        """Of the map, whoever asks: a Bucket's round knows none. A cluster that has none yet gets an id of its own."""
        shards = await self._kube.get("ShardMap", builder.namespace, builder.names["map"])
        if shards is not None:
            return str(shards["spec"]["cluster"])
        return hashlib.sha256(builder.uid.encode()).hexdigest()[:32]

    async def _root(self, builder: Builder) -> Keys:
        """The daemons' own keys. Volumes know them, and serve nobody under others: they are kept as long as the data
        is."""
        name = builder.names["root"]
        if not {"accessKey", "secretKey"} <= set(await self._read(builder, name)):
            await self._may_make(builder, name)
        return await self._once(builder, name)

    async def _reclaim(self, builder: Builder, name: str) -> None:
        _, found = self._seen.get((builder.uid, name), (0.0, None))
        change = builder.reclaimed(found) if found is not None else None
        if change is not None:
            self._keep(builder, name, await self._kube.patch("Secret", builder.namespace, name, change))

    async def _once(self, builder: Builder, name: str) -> Keys:
        found = await self._read(builder, name)
        if "accessKey" not in found or "secretKey" not in found:
            made = new_keys()
            found = {"accessKey": made.access, "secretKey": made.secret}
            await self._write(builder, name, found)
        return Keys(found["accessKey"], found["secretKey"])

    async def _authority(self, builder: Builder, now_s: float) -> Pair:
        name = builder.names["authority"]
        found = await self._read(builder, name)
        old = found.get("ca.crt", "")
        valid_s = max(certificates.AUTHORITY_S if self._leaf_s >= certificates.LEAF_S else 0, self._leaf_s * 10)
        if not certificates.is_whole(old, found.get("ca.key", "")) or certificates.is_due(old, now_s):
            made = certificates.make(f"S4 {builder.namespace}/{builder.name}", now_s, valid_s)
            found = {"ca.crt": certificates.bundle(made.certificate, old, now_s), "ca.key": made.key}
            await self._write(builder, name, found)
        return Pair(found["ca.crt"], found["ca.key"])

    async def _leaf(self, builder: Builder, name: str, authority: Pair, hosts: list[str], now_s: float) -> None:
        found = await self._read(builder, name)
        stale = found.get("ca.pem") != authority.certificate
        stale = stale or not certificates.is_whole(found.get("tls.crt", ""), found.get("tls.key", ""))
        if stale or certificates.is_due(found.get("tls.crt", ""), now_s, hosts, authority.certificate):
            made = certificates.make(builder.name, now_s, self._leaf_s, hosts, authority)
            data = {"tls.crt": made.certificate, "tls.key": made.key, "ca.pem": authority.certificate}
            await self._write(builder, name, data, "kubernetes.io/tls")

    async def _served(self, builder: Builder, authority: Pair, mounted: frozenset[str], now_s: float) -> dict[str, Any]:
        """What S3 is served with, as fields of Trusted. Certificates that pods still have are kept, and believed."""
        tls, own, asked, ca = builder.spec.gateway.tls, builder.names["tls"], "", ""
        found: dict[str, Any] = {}
        if tls.enabled and tls.issuerRef is not None:
            asked = builder.names["issued"]
            found["problem"], ca, found["waits"] = await self._issued(builder, asked, now_s)
        elif tls.enabled and tls.secretName is not None:
            asked = tls.secretName
            missing = "make it, as gateway.tls.secretName names it"
            found["problem"], ca = await self._brought(builder, asked, missing, now_s)
        if own in mounted or (tls.enabled and not asked):
            await self._leaf(builder, own, authority, [*builder.hosts(), uri(S3)], now_s)
        left = sorted(mounted - {asked, own})
        more = [read(await self._kube.get("Secret", builder.namespace, one)).get("ca.crt", "") for one in left]
        return {**found, "ca": tuple(filter(None, [ca, *more])), "others": bool(asked or left)}

    async def _issued(self, builder: Builder, name: str, now_s: float) -> tuple[str, str, bool]:
        """(what is wrong, authorities, whether there is nothing to serve with) of what cert-manager makes. What keeps
        it from being asked, such as a webhook of its own that is away, keeps the cluster from nothing else."""
        wanted, missing = issued.certificate(builder), "cert-manager is to make it"
        problem, ca = await self._brought(builder, name, missing, now_s)
        try:
            found = await self._kube.ours(wanted)
            if found is None or not issued.is_asked(found, wanted):
                found = await self._kube.have(wanted)
        except KubeError as error:
            if not error.status:
                raise
            return issued.ABSENT if error.status == 404 else f"cert-manager cannot be asked: {error}", ca, True
        return issued.waits(found) or problem, ca, missing in problem

    async def _brought(self, builder: Builder, name: str, missing: str, now_s: float) -> tuple[str, str]:
        """(what is wrong with a certificate that others make, the authorities beside it)."""
        found = read(await self._kube.get("Secret", builder.namespace, name))
        ca = found.get("ca.crt", "")
        if not found.get("tls.crt") or not found.get("tls.key"):
            return f"the Secret {name} has no tls.crt and tls.key: {missing}", ca
        try:
            left_s = certificates.ends_s(found["tls.crt"]) - now_s
        except ValueError as error:
            return f"the certificate in the Secret {name} cannot be read: {error}", ca
        return "" if left_s > 0 else f"the certificate in the Secret {name} has ended", ca
