"""Hosts, the pods on them and the primaries in these, of the model in worlds.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from s4.cluster.clustermap import ClusterMap, Partition


class UnsafeError(AssertionError):
    """A step took away what had to stay."""


@dataclass
class ModelPod:
    uid: int
    ordinal: int
    revision: str
    host: str = ""
    store: str = ""
    created: float = 0.0
    ending: bool = False  # it was told to go, and is there until its kubelet says that it is not
    company: int = 0  # of how many a host may have that has this one, as its template says

    @property
    def image(self) -> str:
        return self.revision.partition("+")[0]


@dataclass
class ModelHost:
    alive: bool = True
    silent: bool = False  # its kubelet says nothing, while its pods go on
    cordoned: bool = False
    since: float = 0.0
    disk: dict[int, str] = field(default_factory=dict)  # store by claim uid

    def comes_back(self, now: float) -> None:
        if not self.alive or self.silent:
            self.alive, self.silent, self.since = True, False, now


def tended(current: ClusterMap, one: Partition, up: set[str], gone: set[str]) -> Partition:
    """A partition as its primary has it next: one position after the other."""
    members = ["" if store in gone else store for store in one.config.members]
    for place, (held, wanted) in enumerate(zip(members, one.wanted, strict=True)):
        if held != wanted and wanted in up and not (current.freeze and held in up):
            members[place] = wanted
            break
    keep = [
        store
        for store in one.config.in_sync
        if store not in gone and (store in up or len([s for s in one.config.in_sync if s in up]) < 2)
    ]
    in_sync = [*keep, *(store for store in one.wanted[: current.replicas] if store in up and store not in keep)]
    surplus = [store for store in in_sync if store not in one.wanted[: current.replicas]]
    if surplus and len(in_sync) > current.replicas:
        in_sync.remove(surplus[0])
    config = replace(one.config, members=tuple(members), in_sync=tuple(in_sync), eligible=())
    if config == one.config:
        return one
    return replace(one, revision=one.revision + 1, config=replace(config, epoch=config.epoch + 1))
