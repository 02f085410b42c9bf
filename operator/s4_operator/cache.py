"""Objects as last seen, fed by watches: what is read at rest, without asking the API server.

It may be late, and a deletion during a lost watch may be missed until the next `refresh`; so nothing is taken away on
its word alone (clusters.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from s4_operator.kube import Kube, Object

OF_S4 = "app.kubernetes.io/name=s4"
WATCHED = {
    "S4Cluster": "",
    "Bucket": "",
    "S4User": "",
    "S4Policy": "",
    "S4Role": "",
    "ShardMap": "",
    "Node": "",
    "PersistentVolume": "",
    "Pod": OF_S4,
    "PersistentVolumeClaim": OF_S4,
    "StatefulSet": OF_S4,
}


class Cache:
    """Objects by kind, namespace and name."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], Object]] = {kind: {} for kind in WATCHED}
        self._heard = set[tuple[str, tuple[str, str]]]()  # of what since the list was asked for that is under way

    def see(self, kind: str, value: Object, *, deleted: bool = False) -> bool:
        """Take in an object; whether it is another than the one before."""
        metadata = value["metadata"]
        key = metadata.get("namespace", ""), metadata["name"]
        known = self._objects[kind].get(key)
        self._heard.add((kind, key))
        if deleted:
            if known is not None and known["metadata"]["uid"] == metadata["uid"]:
                del self._objects[kind][key]
            return True
        if known is not None and known["metadata"]["resourceVersion"] == metadata["resourceVersion"]:
            return False
        metadata.pop("managedFields", None)
        self._objects[kind][key] = value
        return True

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._objects[kind].get((namespace, name))

    def list(self, kind: str, namespace: str | None = None, cluster: str = "") -> Iterator[Object]:
        """Objects of a namespace, or of all; only those of a cluster, where one is named."""
        for (where, _), value in sorted(self._objects[kind].items()):
            if namespace is not None and where != namespace:
                continue
            if not cluster or value["metadata"].get("labels", {}).get("s4.dev/cluster") == cluster:
                yield value

    async def refresh(self, kube: Kube) -> None:
        """Everything anew; what watches said while a list was on its way stays. Raises KubeError."""
        for kind, labels in WATCHED.items():
            found: dict[tuple[str, str], Object] = {}
            self._heard.clear()
            for value in await kube.list(kind, labels=labels):
                value["metadata"].pop("managedFields", None)
                value.setdefault("kind", kind)
                found[value["metadata"].get("namespace", ""), value["metadata"]["name"]] = value
            for _, key in (one for one in self._heard if one[0] == kind):
                found.pop(key, None)
                if (known := self._objects[kind].get(key)) is not None:
                    found[key] = known
            self._objects[kind] = found
