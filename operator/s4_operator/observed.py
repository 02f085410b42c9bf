"""What the operator sees of one cluster, as values: the input of plan.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from s4.cluster.clustermap import ClusterMap
from s4.cluster.recovery import Recovery
from s4.cluster.status import ClusterStatus
from s4_operator.models import ClusterSpec
from s4_operator.state_models import ClusterState


@dataclass(frozen=True, slots=True)
class Pod:
    """A storage pod. `revision` is that of its template, `broken` why it does not run, `alone` whether it
    keeps others of its kind from its host, `since_s` when it became Ready or not; times are seconds since 1970."""

    name: str
    ordinal: int
    uid: str
    ip: str = ""
    host: str = ""
    ready: bool = False
    revision: str = ""
    image: str = ""
    deleting: bool = False
    broken: str = ""
    created_s: float = 0.0
    alone: bool = False
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A storage pod's volume claim. `host` is the Kubernetes node that its volume is bound to, if to one; sizes are in
    bytes, 0 where nothing says. `waits` is why a volume has not grown yet, `stuck` whether it will not by itself."""

    name: str
    ordinal: int
    uid: str
    volume: str = ""
    host: str = ""
    deleting: bool = False
    requested: int = 0
    capacity: int = 0
    waits: str = ""
    stuck: bool = False
    storage_class: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """A Kubernetes node. `gone_since_s` is since when it is not ready, None while it is; `since_s` is when
    that last changed. Seconds since 1970."""

    name: str
    gone_since_s: float | None = None
    schedulable: bool = True
    zone: str = ""
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """`status` is None where no daemon answers. `replicas` is None without a StatefulSet; `settled` says whether its
    controller has seen its newest template, whose revision is `revision`."""

    name: str
    spec: ClusterSpec
    before: ClusterState
    now_s: float
    image: str  # that the spec asks for
    replicas: int | None = None
    revision: str = ""
    settled: bool = True
    pods: tuple[Pod, ...] = ()
    claims: tuple[Claim, ...] = ()
    hosts: Mapping[str, Host] = field(default_factory=dict)
    map: ClusterMap | None = None
    status: ClusterStatus | None = None
    confirmed: frozenset[str] = frozenset()  # stores whose loss a person has confirmed by name
    served: str = "not checked yet"  # why the last real write and read failed; empty where they did not
    certificates: str = ""  # what is wrong with them
    buckets: int = 0
    sees_all: bool = True  # every namespace whose Buckets may use the cluster
    refused: Mapping[str, str] = field(default_factory=dict)  # why claims cannot grow, by name
    recovery: Recovery | None = field(
        default_factory=Recovery
    )  # what stores hold of a map that plans nothing; None where none says
    said: Mapping[str, str] = field(default_factory=dict)  # the host that a store's pod was on when it last started
    template_class: str = ""  # of the claims that the StatefulSet makes
    template_image: str = ""  # of the pods that it makes
