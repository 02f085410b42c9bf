"""The operator's only Kubernetes client: objects as dictionaries, by kind. Wraps `kubernetes.aio`.

Everything that the operator makes is applied server-side under one field manager, so that making it twice is making
it once, and what others add to it stays. Deletions name the uid that was seen: another object of that name is safe.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from typing import Any

import aiohttp
from kubernetes import aio

from s4.cluster.kubernetes import client

log = logging.getLogger(__name__)

MANAGER = "s4-operator"
CALL_S = 30.0

Object = dict[str, Any]

# What the operator works with: (group and version, plural, namespaced).
KINDS: dict[str, tuple[str, str, bool]] = {
    "Namespace": ("v1", "namespaces", False),
    "Node": ("v1", "nodes", False),
    "Pod": ("v1", "pods", True),
    "PersistentVolume": ("v1", "persistentvolumes", False),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims", True),
    "Secret": ("v1", "secrets", True),
    "ConfigMap": ("v1", "configmaps", True),
    "Service": ("v1", "services", True),
    "ServiceAccount": ("v1", "serviceaccounts", True),
    "StatefulSet": ("apps/v1", "statefulsets", True),
    "Deployment": ("apps/v1", "deployments", True),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets", True),
    "Role": ("rbac.authorization.k8s.io/v1", "roles", True),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings", True),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies", True),
    "Ingress": ("networking.k8s.io/v1", "ingresses", True),
    "ServiceMonitor": ("monitoring.coreos.com/v1", "servicemonitors", True),
    "PrometheusRule": ("monitoring.coreos.com/v1", "prometheusrules", True),
    "Certificate": ("cert-manager.io/v1", "certificates", True),
    "S4Cluster": ("s4.dev/v1alpha1", "s4clusters", True),
    "Bucket": ("s4.dev/v1alpha1", "buckets", True),
    "S4User": ("s4.dev/v1alpha1", "s4users", True),
    "S4Policy": ("s4.dev/v1alpha1", "s4policies", True),
    "S4Role": ("s4.dev/v1alpha1", "s4roles", True),
    "Event": ("v1", "events", True),
    "ShardMap": ("s4.dev/v1alpha1", "shardmaps", True),
}


def why(error: BaseException, patience_s: float) -> str:
    """Why a call got no answer, as people read it."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, TimeoutError):
        return f"nothing came within {patience_s:.0f} s"
    return str(getattr(cause, "strerror", "") or error or type(error).__name__)


class KubeError(Exception):
    """The API server refused, or does not answer. `status` is the HTTP status, 0 for no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TakenError(KubeError):
    """An object that would be made is there, and somebody else's."""

    def __init__(self, kind: str, namespace: str, name: str) -> None:
        super().__init__(
            409,
            f"there is a {kind} {name} in the namespace {namespace} that belongs to somebody else: it is left as it is",
        )
        self.kind = kind


class Kube:
    """Calls on the API server. Each raises KubeError. `namespaces` are those that it works in; all, where none is
    named."""

    def __init__(self, api: aio.client.ApiClient, namespaces: tuple[str, ...] = ()) -> None:
        self.api, self.namespaces = api, namespaces
        self.calls = 0

    def sees(self, namespaces: Collection[str]) -> bool:
        """Whether what is in these is seen, all of it; `*` is everywhere."""
        return not self.namespaces or set(namespaces) <= set(self.namespaces)

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, namespaces: tuple[str, ...] = ()) -> Kube:
        return cls(await client(kubeconfig), namespaces)

    async def close(self) -> None:
        await self.api.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, None where there is none."""
        try:
            return await self._call("GET", _path(kind, namespace, name))
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: str, namespace: str = "", labels: str = "") -> list[Object]:
        """Objects of one namespace, or of all that it works in."""
        query = {"labelSelector": labels} if labels else {}
        found: list[Object] = []
        for where in (namespace,) if namespace or not KINDS[kind][2] else self.namespaces or ("",):
            found += (await self._call("GET", _path(kind, where), query))["items"]
        return found

    async def create(self, value: Object) -> Object:
        return await self._call("POST", _path(value["kind"], _namespace(value)), body=value)

    async def ours(self, value: Object) -> Object | None:
        """The object of this kind and name, if it was made for the same owner as this one would be; None where there is
        none. Raises TakenError."""
        kind, name = value["kind"], value["metadata"]["name"]
        found = await self.get(kind, _namespace(value), name)
        if found is not None and not is_for_the_same(found, value):
            raise TakenError(kind, _namespace(value), name)
        return found

    async def have(self, value: Object) -> Object:
        """Make the object, or have these fields of it be so. What is somebody else's stays. Raises TakenError.

        The uid that was seen goes along, so that one which took its place meanwhile is not changed; and into one that
        was made meanwhile nothing is forced."""
        found = await self.ours(value)
        if found is None:
            return await self._apply(value, "false")
        return await self._apply({**value, "metadata": {**value["metadata"], "uid": found["metadata"]["uid"]}}, "true")

    async def _apply(self, value: Object, force: str) -> Object:
        query = {"fieldManager": MANAGER, "force": force}
        path = _path(value["kind"], _namespace(value), value["metadata"]["name"])
        return await self._call("PATCH", path, query, value, "application/apply-patch+yaml")

    async def patch(self, kind: str, namespace: str, name: str, change: Object, *, status: bool = False) -> Object:
        """Merge a change; null removes a field."""
        path = _path(kind, namespace, name) + ("/status" if status else "")
        return await self._call("PATCH", path, {}, change, "application/merge-patch+json")

    async def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        uid: str = "",
        grace_s: int | None = None,
        *,
        orphans: bool = False,
    ) -> None:
        """Delete the object with this uid; that it is gone already is success. With `orphans` what it owns stays."""
        policy = "Orphan" if orphans else "Background"
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy}
        if uid:
            body["preconditions"] = {"uid": uid}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        try:
            await self._call("DELETE", _path(kind, namespace, name), body=body)
        except KubeError as error:
            if error.status not in (404, 409):
                raise

    async def tell(self, about: Object, reason: str, message: str, at: str, *, warning: bool = False) -> None:
        """An event on an object, for people, of the time `at`. One that cannot be written is only logged."""
        metadata = about["metadata"]
        where = {name: metadata[name] for name in ("name", "namespace", "uid")}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": {"apiVersion": "s4.dev/v1alpha1", "kind": about["kind"], **where},
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message[:1024],
            "source": {"component": MANAGER},
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        try:
            await self.create(event)
        except KubeError as error:
            log.warning("no event for %s: %s", message, error)

    async def issuer(self) -> tuple[str, str]:
        """(the issuer of this Kubernetes' tokens of ServiceAccounts, its keys as a JSON Web Key Set)."""
        found = await self._call("GET", "/.well-known/openid-configuration")
        keys = await self._call("GET", "/openid/v1/jwks", accept="application/jwk-set+json")
        return str(found.get("issuer", "")), json.dumps(keys, sort_keys=True)

    async def has_api(self, kind: str) -> bool:
        """Whether the API server knows a kind at all."""
        group, plural, _ = KINDS[kind]
        try:
            found = await self._call("GET", f"/apis/{group}")
        except KubeError as error:
            if error.status == 404:
                return False
            raise
        return any(one["name"] == plural for one in found["resources"])

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        kind: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        self.calls += 1
        headers = {"Accept": accept, "Content-Type": kind}
        try:
            called = await self.api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = await self.api.call_api(*called, _request_timeout=CALL_S)
            raw = await answer.read()  # type: ignore[no-untyped-call]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(0, f"the Kubernetes API does not answer: {why(error, CALL_S)}") from error
        try:
            value: Object = json.loads(raw) if raw else {}
        except ValueError:  # a path that no API has is answered in plain text
            value = {"message": raw.decode(errors="replace").strip()[:300]}
        if answer.status >= 400:
            raise KubeError(answer.status, str(value.get("message", answer.reason)))
        return value


def is_for_the_same(found: Object, wanted: Object) -> bool:
    """Whether what is there was made for the owner of what is wanted, or for one of that kind and name before it."""
    (owner,) = wanted["metadata"]["ownerReferences"]
    references = found["metadata"].get("ownerReferences") or []
    if any(one["uid"] == owner["uid"] for one in references):
        return True
    labels, same = found["metadata"].get("labels") or {}, wanted["metadata"]["labels"]
    marked = all(
        labels.get(name) == same.get(name)
        for name in ("app.kubernetes.io/managed-by", "s4.dev/cluster", "s4.dev/bucket", "s4.dev/user", "s4.dev/role")
    )
    return marked and all((one["kind"], one["name"]) == (owner["kind"], owner["name"]) for one in references)


def _namespace(value: Object) -> str:
    return str(value["metadata"].get("namespace", ""))


def _path(kind: str, namespace: str, name: str = "") -> str:
    group, plural, namespaced = KINDS[kind]
    start = f"/api/{group}" if group == "v1" else f"/apis/{group}"
    middle = f"/namespaces/{namespace}" if namespaced and namespace else ""
    return f"{start}{middle}/{plural}" + (f"/{name}" if name else "")
