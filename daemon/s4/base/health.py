"""How well a server or a cluster is: the one place that decides it. Pure: what is known goes in, a level and sentences
come out.

`s4 admin status`, `s4 admin cluster status`, /readyz, the metric s4_health and the operator's conditions all show what
is decided here, so that none of them says something else. A level is never better than what is known: who does not
answer counts as away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

import msgspec

from s4.base.text import human

OK, DEGRADED, AT_RISK, DOWN = LEVELS = ("ok", "degraded", "at risk", "down")


class Health(msgspec.Struct, frozen=True):
    """`level` is one of LEVELS; `reasons` say why it is not ok, the gravest first."""

    level: str = OK
    reasons: list[str] = []

    @property
    def number(self) -> int:
        """For metrics: 0 is ok, 3 down."""
        return LEVELS.index(self.level)

    def text(self) -> str:
        """As probes show it: a word, and a line for each reason."""
        return self.level + "\n" + "".join(f"! {reason}\n" for reason in self.reasons)


class Shape(msgspec.Struct, frozen=True):
    """What a partition needs: k and m, the copies of its metadata that a commit needs, and those it should have."""

    data: int
    parity: int
    minimum: int
    replicas: int

    @property
    def needed(self) -> int:
        """Shards without which nothing is written (D1)."""
        return self.data + (1 if self.parity > 1 else 0)


class Part(msgspec.Struct, frozen=True):
    """What a partition has: shards whose stores are there, copies of its metadata in sync, whether somebody serves it,
    and how many of its stores are full."""

    live: int
    copies: int
    served: bool = True
    full: int = 0


def judge(
    shape: Shape,
    parts: Iterable[Part],
    *,
    away: Iterable[str] = (),
    heals: int = 0,
    moves: int = 0,
    full: Iterable[str] = (),
    alarms: Iterable[str] = (),
) -> Health:
    """`away` are sentences on stores that are not there, `full` on those that take no more, `alarms` on all else that
    somebody should look at."""
    counts, total = Counter[str](), 0
    unserved = "have no primary that serves"
    unread = f"have fewer than {shape.data} of their shards' stores: objects cannot be read"
    unwritten = f"have fewer than {shape.needed} of their shards' stores: writes are refused"
    cramped = f"have fewer than {shape.needed} stores with room: uploads are refused"
    thin = f"have fewer than {shape.minimum} copies of the metadata: writes are refused"
    fewer = "have fewer copies of the metadata than they should"
    for one in parts:
        total += 1
        counts[unserved] += not one.served
        counts[unread] += one.live < shape.data
        counts[unwritten] += one.live < shape.needed
        counts[cramped] += one.live >= shape.needed > one.live - one.full
        counts[thin] += one.copies < shape.minimum
        counts[fewer] += one.copies < shape.replicas
    order = (unserved, unread, unwritten, cramped, thin, fewer)
    reasons = [f"{counts[name]} of {total} partitions {name}" for name in order if counts[name]]
    reasons += [*full, *away]
    if heals:
        reasons.append(f"{heals} shards wait to be made again")
    if moves:
        reasons.append(f"{moves} positions are on their way to where the plan wants them")
    reasons += alarms
    if counts[unserved] or counts[unread]:
        return Health(DOWN, reasons)
    if counts[unwritten] or counts[cramped] or counts[thin]:
        return Health(AT_RISK, reasons)
    return Health(DEGRADED if reasons else OK, reasons)


def full(free_bytes: int, reserve_bytes: int, total_bytes: int) -> str:
    """Why a drive takes no more, as what follows its name; empty where it does, or does not say how much room it
    has."""
    if not total_bytes or free_bytes > reserve_bytes:
        return ""
    return f"is full: {human(free_bytes)} are free, the reserve is {human(reserve_bytes)}"


def storable(data: int, partitions: int, stores: Iterable[tuple[int, int]]) -> int:
    """Bytes of content that can still be stored: the store that is filled up first ends it, since every object has a
    shard on each store of its partition. `stores` are (bytes free above the reserve, positions held) of each. Of
    content in rows `data` is 1, and positions are copies of partitions' metadata."""
    held = [max(0, free) * partitions // positions for free, positions in stores if positions]
    return min(held, default=0) * data


def told(alarms: Iterable[tuple[str, Collection[str]]]) -> list[str]:
    """Alarms by who raised them as sentences; what all say alike is said once."""
    by_text: dict[str, list[str]] = {}
    for name, texts in alarms:
        for text in texts:
            by_text.setdefault(text, []).append(name)
    return [
        f"{', '.join(names) if len(names) < 4 else f'{len(names)} nodes'}: {text}" for text, names in by_text.items()
    ]


def probed(path: str, ready: Callable[[], str], known: Callable[[], Health]) -> tuple[int, bytes]:
    """What strangers are told: one word. The reasons, which name drives and nodes, are at the admin port."""
    reason = ready() if path == "/readyz" else ""
    if reason:
        return 503, reason.encode() + b"\n"
    return 200, (known().level if path == "/readyz" else OK).encode() + b"\n"
