"""What the operator remembers of an S4Cluster from round to round: it saves work, and may be lost at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field

from s4_operator.kube import Object
from s4_operator.steps import Step

CHECK_S, CHECK_SOON_S, PATIENCE_S = 60.0, 3.0, 15.0


@dataclass(slots=True)
class Memory:
    """What was done for a cluster and need not be done again for a while."""

    applied: str = ""
    rejected: str = ""  # objects that are somebody else's, or that the API server refuses, in words
    guarded: bool = False  # the disruption budget of the storage pods is as it should be
    applied_at: float = 0.0
    checked_at: float = -CHECK_S
    failing_since: float = 0.0
    served: str = "not checked yet"
    keys: str = ""
    keys_at: float = 0.0
    sweep: bool = True
    filled: tuple[float, float] = (0.0, 1.0)  # when, and how far
    said: dict[str, str] = field(default_factory=dict)
    cluster: str = ""  # its id
    done: list[tuple[Step, str]] = field(default_factory=list)  # in this round, to be told
    told_s: float = 0.0  # what the newest event says that it is from
    refused: dict[str, tuple[float, str]] = field(default_factory=dict)  # claims that cannot grow: since when, and why

    @classmethod
    def of(cls, cluster: Object) -> Memory:
        """Of a cluster that this process has not seen yet: one that was Ready is so until it fails for a while."""
        listed = cluster.get("status", {}).get("conditions") or ()
        served = any((one["type"], one["status"]) == ("Ready", "True") for one in listed)
        return cls(served="") if served else cls()

    def heard(self, reason: str, now_s: float) -> None:
        """Why an object could not be written and read just now, or "". What an SDK's retries get over, such as a
        failover, does not count as not working."""
        if not reason:
            self.served, self.failing_since = "", 0.0
            return
        self.failing_since = self.failing_since or now_s
        if self.served or now_s - self.failing_since > PATIENCE_S:
            self.served = reason
