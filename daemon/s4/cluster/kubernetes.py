"""The coordinator in Kubernetes: the map is a ShardMap resource, its revision the resource's version.

The only module of the daemon that knows Kubernetes. A daemon may write the status of its ShardMap and nothing else,
so a change that needs more is refused before the API server does (kubernetes_map.py). A planner writes the spec, and
the status only with the partitions' first plan: first the spec, then the status; a crash between the two leaves a
plan that nobody holds yet, which counts as no plan and is made again.

A write whose answer is lost has an unknown outcome (R4); the resource's version makes that it lands once at most. A
watch only wakes us: what is given is always read, from a quorum.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes import aio

from s4.cluster import clustermap
from s4.cluster.coordinator import ConflictError, CoordinatorError, RemoteCoordinator, UnknownOutcomeError
from s4.cluster.kubernetes_map import Half, joined, split

log = logging.getLogger(__name__)

GROUP, VERSION, PLURAL, KIND = "s4.dev", "v1alpha1", "shardmaps", "ShardMap"
DOCUMENT = "map"
CALL_S = 5.0
REFRESH_S = 30.0  # a watch that says nothing for so long is not trusted: the map is read
IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

_Failed = (aiohttp.ClientError, TimeoutError, OSError, aio.client.ApiException)


def parse(text: str) -> tuple[str, str]:
    """(namespace, name) of kubernetes://NAMESPACE/NAME. Raises ValueError."""
    match = re.fullmatch(r"kubernetes://([a-z0-9-]{1,63})/([a-z0-9.-]{1,63})", text)
    if match is None:
        raise ValueError(f"--coordinator {text!r}: write kubernetes://NAMESPACE/NAME, NAME being the ShardMap's")
    return match[1], match[2]


async def client(kubeconfig: str | None = None) -> aio.client.ApiClient:
    """A client for the cluster that this pod is in, or that `kubeconfig` names, or KUBECONFIG. Raises
    CoordinatorError."""
    configuration = aio.client.Configuration()
    try:
        if kubeconfig is None and IN_POD.exists():
            aio.config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            await aio.config.load_kube_config(  # type: ignore[no-untyped-call]
                kubeconfig, client_configuration=configuration
            )
    except aio.config.ConfigException as error:
        raise CoordinatorError(f"Kubernetes cannot be reached from here: {error}") from error
    return aio.client.ApiClient(configuration)


class KubernetesCoordinator(RemoteCoordinator):
    """One document, the map, in one ShardMap. `planner` may write all of it, and make it."""

    RETRY_S = 0.5

    def __init__(
        self, namespace: str, name: str, api: aio.client.ApiClient | None = None, *, planner: bool = False
    ) -> None:
        self.namespace, self.name, self._api, self._planner = namespace, name, api, planner
        self._own = api is None
        self._seen: dict[str, Any] = {}

    async def _objects(self) -> aio.client.CustomObjectsApi:
        if self._api is None:
            self._api = await client()
        return aio.client.CustomObjectsApi(self._api)

    @property
    def _where(self) -> dict[str, Any]:
        return {"group": GROUP, "version": VERSION, "namespace": self.namespace, "plural": PLURAL}

    async def read(self, document: str) -> tuple[bytes, int]:
        if document != DOCUMENT:
            return b"", 0
        try:
            async with asyncio.timeout(CALL_S):
                found = await (await self._objects()).get_namespaced_custom_object(**self._where, name=self.name)
        except aio.client.ApiException as error:
            if error.status == 404:
                return b"", 0
            raise CoordinatorError(
                f"the ShardMap {self.namespace}/{self.name} cannot be read: {_shown(error)}"
            ) from error
        except _Failed as error:
            raise CoordinatorError(f"the Kubernetes API does not answer: {error!r}") from error
        return self._taken(found)

    def _taken(self, found: Any) -> tuple[bytes, int]:
        self._seen = found
        return clustermap.encode(joined(found["spec"], found.get("status") or {})), _revision(found)

    async def replace(self, document: str, value: bytes, revision: int) -> int:
        """Raises ConflictError, UnknownOutcomeError, NotPlannerError."""
        if not self._seen or _revision(self._seen) != revision:
            await self.read(document)
        seen = self._seen
        known = _revision(seen) if seen else 0
        if known != revision:
            raise ConflictError(f"the ShardMap is at version {known}, not {revision}")
        old_spec, old_status = seen.get("spec") or {}, seen.get("status") or {}
        spec, status = split(clustermap.decode(value), old_spec, old_status, plans=self._planner)
        if self._planner:
            written = await self._write("spec", spec, seen)
            if status["partitions"] and not old_status.get("partitions"):
                written = await self._write("status", status, written)
        else:
            written = await self._write("status", status, seen)
        self._seen = written
        return _revision(written)

    async def _write(self, part: str, half: Half, seen: dict[str, Any]) -> dict[str, Any]:
        """Write one half of the object as it was seen; make it where there was none."""
        api = await self._objects()
        metadata = {name: value for name, value in seen.get("metadata", {}).items() if name != "managedFields"}
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "spec": seen.get("spec"),
            "metadata": metadata or {"name": self.name, "namespace": self.namespace},
            part: half,
        }
        try:
            async with asyncio.timeout(CALL_S):
                if not seen:
                    found = await api.create_namespaced_custom_object(**self._where, body=body)
                elif part == "status":
                    found = await api.replace_namespaced_custom_object_status(**self._where, name=self.name, body=body)
                else:
                    found = await api.replace_namespaced_custom_object(**self._where, name=self.name, body=body)
        except aio.client.ApiException as error:
            if error.status in (404, 409):
                raise ConflictError(f"the ShardMap was changed meanwhile: {_shown(error)}") from error
            if error.status < 500 and error.status != 429:
                raise CoordinatorError(f"the ShardMap cannot be written: {_shown(error)}") from error
            raise UnknownOutcomeError(f"the ShardMap may have been written, or not: {_shown(error)}") from error
        except _Failed as error:
            raise UnknownOutcomeError(f"the ShardMap may have been written, or not: {error!r}") from error
        result: dict[str, Any] = found  # type: ignore[assignment]
        return result

    async def _wait(self, document: str, since: int) -> None:
        """By a list, and a watch from its version: from the map's own, one that has not changed for long is answered
        that it is too old (410) after a restart of the API server, again and again."""
        api, chosen = await self._objects(), {**self._where, "field_selector": f"metadata.name={self.name}"}
        try:
            async with asyncio.timeout(REFRESH_S):
                found: Any = await api.list_namespaced_custom_object(**chosen)
                if [_revision(one) for one in found["items"]] != ([since] if since else []):
                    return
                version = found["metadata"]["resourceVersion"]
                answer = await api.list_namespaced_custom_object_without_preload_content(
                    **chosen, watch=True, resource_version=version, timeout_seconds=int(REFRESH_S)
                )
                try:
                    said = await answer.content.readany() if answer.status == 200 else b""
                    if said and b'"ERROR"' not in said[:20]:
                        return
                finally:
                    answer.close()
        except TimeoutError:
            return
        except _Failed as error:
            log.info("a watch ended: %r", error)
        await asyncio.sleep(self.RETRY_S)

    async def close(self) -> None:
        if self._own and self._api is not None:
            await self._api.close()  # type: ignore[no-untyped-call]


def _revision(found: dict[str, Any]) -> int:
    return int(found["metadata"]["resourceVersion"])


def _shown(error: aio.client.ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"
