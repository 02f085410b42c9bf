"""Hosts, and the pods on them, of the model in worlds.py."""

from __future__ import annotations

from dataclasses import dataclass, field


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
