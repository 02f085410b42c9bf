"""The CRDs, from the models: `python -m s4_operator.crd DIR` writes them; a test fails when crds/ differs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from s4_operator.bucket_models import BucketSpec, BucketState
from s4_operator.models import GROUP, VERSION, ClusterSpec
from s4_operator.people_models import PolicySpec, PolicyState, RoleSpec, RoleState, UserSpec, UserState
from s4_operator.state_models import ClusterState

Schema = dict[str, Any]
INTEGER: Schema = {"type": "integer", "format": "int64"}
PLACES: Schema = {"type": "array", "items": {"type": "integer"}}


def structural(model: type[BaseModel]) -> Schema:
    """A model as a structural schema: no references, no titles, null as nullable."""
    whole = model.model_json_schema(by_alias=True)
    return _structural(whole, whole.get("$defs", {}))


def _structural(schema: Schema, known: dict[str, Schema]) -> Schema:
    if "$ref" in schema:
        named = known[schema["$ref"].rpartition("/")[2]]
        schema = {**named, **{name: value for name, value in schema.items() if name != "$ref"}}
    if "anyOf" in schema and "x-kubernetes-int-or-string" in schema:
        return {name: value for name, value in schema.items() if name not in ("anyOf", "title")}
    if "anyOf" in schema:
        (kind,) = (one for one in schema["anyOf"] if one.get("type") != "null")
        rest = {name: value for name, value in schema.items() if name != "anyOf"}
        schema = {**_structural(kind, known), **rest, "nullable": True}
    if schema.get("nullable") and schema.get("default", 0) is None:
        schema = {name: value for name, value in schema.items() if name != "default"}
    dropped = {"title", "$defs", "additionalProperties"}
    found = {name: value for name, value in schema.items() if name not in dropped}
    if "properties" in found:
        made = {name: _structural(value, known) for name, value in found["properties"].items()}
        for name, value in made.items():
            if "properties" in value and name not in found.get("required", ()) and not value.get("nullable"):
                inner = value["properties"].items()  # so that rules find what nobody wrote
                value["default"] = {part: one["default"] for part, one in inner if "default" in one}
        found["properties"] = made
    if "items" in found:
        found["items"] = _structural(found["items"], known)
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict) and extra and not found.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = _structural(extra, known)
    if found.get("type") == "integer":
        found["format"] = "int64"
    if "const" in found:
        found["enum"] = [found.pop("const")]
    return found


def _column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path, **({"priority": 1} if wide else {})}


AGE = _column("Age", ".metadata.creationTimestamp", "date")
READY = _column("Ready", '.status.conditions[?(@.type=="Ready")].status')


def _crd(
    kind: str,
    plural: str,
    short: str,
    schema: Schema,
    columns: list[dict[str, Any]],
    scale: dict[str, str] | None = None,
    categories: list[str] | None = None,
) -> dict[str, Any]:
    subresources: dict[str, Any] = {"status": {}}
    if scale:
        subresources["scale"] = scale
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": categories or ["s4"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": subresources,
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def _resource(spec: Schema, status: Schema) -> Schema:
    return {"type": "object", "required": ["spec"], "properties": {"spec": spec, "status": status}}


def cluster() -> dict[str, Any]:
    columns = [
        _column("Phase", ".status.phase"),
        READY,
        _column("Nodes", ".status.nodesReady"),
        _column("Version", ".status.version"),
        _column("Used", ".status.filled"),
        _column("Epoch", ".status.epoch", "integer", wide=True),
        _column("Message", ".status.summary"),
        AGE,
    ]
    scale = {
        "specReplicasPath": ".spec.nodes",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    schema = _resource(structural(ClusterSpec), structural(ClusterState))
    schema["properties"]["metadata"] = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 40}}}
    return _crd("S4Cluster", "s4clusters", "s4c", schema, columns, scale)


def bucket() -> dict[str, Any]:
    columns = [
        _column("Phase", ".status.phase"),
        READY,
        _column("Cluster", ".spec.clusterRef.name"),
        _column("Bucket", ".status.bucketName"),
        _column("Secret", ".status.secretName"),
        _column("Message", ".status.message"),
        AGE,
    ]
    return _crd("Bucket", "buckets", "s4b", _resource(structural(BucketSpec), structural(BucketState)), columns)


def user() -> dict[str, Any]:
    columns = [
        _column("Phase", ".status.phase"),
        READY,
        _column("Cluster", ".spec.clusterRef.name"),
        _column("Secret", ".status.secretName"),
        _column("ARN", ".status.arn", wide=True),
        _column("Message", ".status.message"),
        AGE,
    ]
    return _crd("S4User", "s4users", "s4u", _named(_resource(structural(UserSpec), structural(UserState))), columns)


def policy() -> dict[str, Any]:
    columns = [
        _column("Phase", ".status.phase"),
        READY,
        _column("Cluster", ".spec.clusterRef.name"),
        _column("ARN", ".status.arn", wide=True),
        _column("Message", ".status.message"),
        AGE,
    ]
    schema = _named(_resource(structural(PolicySpec), structural(PolicyState)))
    return _crd("S4Policy", "s4policies", "s4p", schema, columns)


def role() -> dict[str, Any]:
    columns = [
        _column("Phase", ".status.phase"),
        READY,
        _column("Cluster", ".spec.clusterRef.name"),
        _column("ConfigMap", ".status.configMapName"),
        _column("Audience", ".status.audience", wide=True),
        _column("Message", ".status.message"),
        AGE,
    ]
    return _crd("S4Role", "s4roles", "s4r", _named(_resource(structural(RoleSpec), structural(RoleState))), columns)


def _named(schema: Schema) -> Schema:
    """A name is a label's value too, and with an ending that of a Secret."""
    named = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 63}}}
    return {**schema, "properties": {**schema["properties"], "metadata": named}}


def shardmap() -> dict[str, Any]:
    """The two halves of the daemons' `s4.cluster.halves`."""
    store = {"id": {"type": "string"}, "weight": {"type": "number"}, "domain": {"type": "string"}}
    spec = {
        "type": "object",
        "properties": {
            "format": INTEGER,
            "cluster": {"type": "string"},
            "data": INTEGER,
            "parity": INTEGER,
            "count": INTEGER,
            "freeze": {"type": "boolean"},
            "copies": INTEGER,
            "stores": {
                "type": "array",
                "items": {"type": "object", "properties": {**store, "state": {"type": "string"}}},
            },
            "partitions": {
                "type": "array",
                "items": {"type": "object", "properties": {"revision": INTEGER, "wanted": PLACES}},
            },
        },
    }
    held = {
        "revision": INTEGER,
        "epoch": INTEGER,
        "primary": INTEGER,
        "inSync": PLACES,
        "eligible": PLACES,
        "members": PLACES,
        "joining": INTEGER,
        "position": INTEGER,
    }
    said = {**store, "node": {"type": "string"}, "address": {"type": "string"}}
    status = {
        "type": "object",
        "properties": {
            "stores": {"type": "array", "items": {"type": "object", "properties": said}},
            "partitions": {"type": "array", "items": {"type": "object", "properties": held}},
        },
    }
    columns = [
        _column("Data", ".spec.data", "integer"),
        _column("Parity", ".spec.parity", "integer"),
        _column("Partitions", ".spec.count", "integer"),
        _column("Frozen", ".spec.freeze", "boolean"),
        AGE,
    ]
    return _crd("ShardMap", "shardmaps", "s4m", _resource(spec, status), columns)


def written() -> dict[str, str]:
    """The files of crds/ by name."""
    made = {
        "s4clusters": cluster(),
        "buckets": bucket(),
        "s4users": user(),
        "s4policies": policy(),
        "s4roles": role(),
        "shardmaps": shardmap(),
    }
    head = "# Made by `python -m s4_operator.crd crds`: change operator/s4_operator/models.py instead.\n"
    return {f"{name}.yaml": head + yaml.safe_dump(value, sort_keys=False, width=110) for name, value in made.items()}


def main() -> None:
    directory = Path(sys.argv[1])
    for name, text in written().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    main()
