"""What the status of a cluster says: written by report.py, part of the CRD as models.py is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from s4_operator.models import Model


class Condition(Model):
    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    lastTransitionTime: str
    observedGeneration: int = 0


Conditions = Annotated[
    list[Condition], Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
]


class NodeStatus(Model):
    name: str
    store: str = ""
    host: str = ""
    state: str = ""
    ready: bool = False
    version: str = ""
    primaries: int = 0
    positions: int = 0
    used: int = 0


class HostStatus(Model):
    name: str
    zone: str = ""
    ready: str = Field("", description="Stores that serve, of those that it has.")
    state: str = Field("", description="Ready, Partly, Away; Cordoned where no pod may come to it.")
    nodes: list[str] = Field(default_factory=list)
    used: int = 0
    total: int = 0


class PartitionCounts(Model):
    healthy: int = 0
    degraded: int = 0
    moving: int = 0
    unavailable: int = 0


class RebuildStatus(Model):
    percent: int = 100
    waitingShards: int = 0
    remainingSeconds: int | None = None


class ClusterState(Model):
    observedGeneration: int = 0
    phase: str = ""
    message: str = ""
    conditions: Conditions = Field(default_factory=list)
    nodes: list[NodeStatus] = Field(default_factory=list)
    hosts: list[HostStatus] = Field(
        default_factory=list, description="The nodes by the host that they are on, or have to be."
    )
    nodesReady: str = ""
    replicas: int = 0
    selector: str = ""
    epoch: int = 0
    partitions: PartitionCounts = Field(default_factory=PartitionCounts)
    usedBytes: int = 0
    rawBytes: int = 0
    used: str = ""
    filled: str = Field("", description="How full the stores are, together.")
    summary: str = Field("", description="The message, as far as a column has room for it.")
    rebuild: RebuildStatus = Field(default_factory=RebuildStatus)
    image: str = Field("", description="The image that every node ran well last.")
    blockedImage: str = Field("", description="An image that was rolled back.")
    version: str = ""
    buckets: int = Field(0, description="Buckets that use this cluster, which cannot be deleted meanwhile.")
