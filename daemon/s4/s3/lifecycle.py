"""Lifecycle rules of a bucket: what they say of a version, and when. Pure.

A day is `day_ms` long, by which tests and trials shorten it; what is due is due at the day's beginning that follows,
as in S3. A rule that cannot be read expires nothing. Source: Amazon S3 user guide, "Managing the lifecycle of
objects".
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from urllib.parse import quote

import msgspec

from s4.metadata.classes import STANDARD
from s4.s3 import classes
from s4.s3.errors import S3Error
from s4.s3.names import http_date, number
from s4.s3.tags import check
from s4.s3.xml import Element, tag

MOST_RULES, MOST_DAYS, MOST_NEWER = 1000, 36_500, 100
DAY_MS = 86_400_000
CURRENT, NONCURRENT, MARKER = "current", "noncurrent", "marker"  # what an expiry is of


class Move(msgspec.Struct, frozen=True):
    """A transition to another class, by days or (where `date_ms` is set) by date; of noncurrent versions by days,
    `newer` kept."""

    storage_class: str
    days: int = 0
    date_ms: int = 0
    newer: int = 0


class Rule(msgspec.Struct, frozen=True):
    """`varies` is of the whole configuration: varies_by_storage_class, which for the classes that S4 has is the
    default. Days and counts of 0 are not set; `date_ms` too, and never both days and a date. `above` and `below` bound
    sizes, exclusively; -1 is no bound."""

    id: str
    enabled: bool
    prefix: str = ""
    tags: dict[str, str] = {}
    above: int = -1
    below: int = -1
    days: int = 0
    date_ms: int = 0
    markers: bool = False
    noncurrent_days: int = 0
    newer: int = 0
    abort_days: int = 0
    old_prefix: bool = False  # written in the rule itself, not in a filter
    moves: list[Move] = []
    noncurrent_moves: list[Move] = []
    varies: bool = False

    def takes(self, key: str, size: int, tags: Mapping[str, str]) -> bool:
        return (
            self.enabled
            and key.startswith(self.prefix)
            and (self.above < 0 or size > self.above)
            and (self.below < 0 or size < self.below)
            and all(tags.get(name) == value for name, value in self.tags.items())
        )

    def moves_size(self, size: int) -> bool:
        """Small objects stay where they are unless the rule's own filter speaks of sizes."""
        return self.above >= 0 or self.below >= 0 or size >= classes.LEAST_BYTES


@dataclass(frozen=True, slots=True)
class Version:
    """A row as rules see it. `kept` is how many newer versions of the past the rule keeps that ends or moves this
    one."""

    key: str
    id: str
    modified_ms: int
    size: int
    marker: bool
    tags: Mapping[str, str]
    kept: int = 0
    storage_class: str = STANDARD
    null: bool = False


def _after(start_ms: int, days: int, day_ms: int) -> int:
    return -(-(start_ms + days * day_ms) // day_ms) * day_ms


def expires_at(
    rules: Sequence[Rule], key: str, modified_ms: int, size: int, tags: Mapping[str, str], day_ms: int
) -> tuple[int, str] | None:
    """(when, by which rule) a current version ends first; None where none ends it."""
    found = []
    for rule in rules:
        if (rule.days or rule.date_ms) and rule.takes(key, size, tags):
            found.append((_after(modified_ms, rule.days, day_ms) if rule.days else rule.date_ms, rule.id))
    return min(found, default=None)


def aborts_at(rules: Sequence[Rule], key: str, created_ms: int, day_ms: int) -> tuple[int, str] | None:
    """(when, by which rule) an upload that is not completed ends."""
    found = [
        (_after(created_ms, rule.abort_days, day_ms), rule.id)
        for rule in rules
        if rule.abort_days and rule.enabled and key.startswith(rule.prefix)
    ]
    return min(found, default=None)


def due(rules: Sequence[Rule], versions: Sequence[Version], now_ms: int, day_ms: int) -> Iterator[tuple[str, Version]]:
    """What has ended of one key, whose versions come newest first: (of what kind, version)."""
    newest = versions[0]
    if newest.marker:
        if len(versions) == 1 and any(_clears(rule, newest, now_ms, day_ms) for rule in rules):
            yield MARKER, newest
    else:
        end = expires_at(rules, newest.key, newest.modified_ms, newest.size, newest.tags, day_ms)
        if end is not None and end[0] <= now_ms:
            yield CURRENT, newest
    for at, one in enumerate(versions[1:]):
        since_ms = versions[at].modified_ms  # it is of the past since its successor came
        for rule in rules:
            if (
                rule.noncurrent_days
                and at >= rule.newer
                and rule.takes(one.key, one.size, one.tags)
                and _after(since_ms, rule.noncurrent_days, day_ms) <= now_ms
            ):
                yield NONCURRENT, replace(one, kept=rule.newer)
                break


def moving(
    rules: Sequence[Rule], versions: Sequence[Version], now_ms: int, day_ms: int
) -> Iterator[tuple[str, Version, str]]:
    """What goes to another class of one key, whose versions come newest first: (CURRENT or NONCURRENT, version,
    class)."""
    for at, one in enumerate(versions):
        if one.marker:
            continue
        due = dict[str, int]()  # class -> how many newer versions of the past are kept back
        for rule in rules:
            if not ((rule.noncurrent_moves if at else rule.moves) and rule.takes(one.key, one.size, one.tags)):
                continue
            for move in (rule.noncurrent_moves if at else rule.moves) if rule.moves_size(one.size) else ():
                since_ms = versions[at - 1].modified_ms if at else one.modified_ms
                when = move.date_ms or _after(since_ms, move.days, day_ms)
                if when <= now_ms and (not at or at - 1 >= move.newer):
                    due[move.storage_class] = min(move.newer, due.get(move.storage_class, move.newer))
        target = classes.furthest(one.storage_class, due)
        if target:
            yield NONCURRENT if at else CURRENT, replace(one, kept=due[target]), target


def _clears(rule: Rule, marker: Version, now_ms: int, day_ms: int) -> bool:
    """Whether a rule removes a marker that stands for nothing: at once, or once it has the age that ends objects."""
    if not rule.enabled or rule.tags or rule.above >= 0 or rule.below >= 0 or not marker.key.startswith(rule.prefix):
        return False
    return rule.markers or (rule.days > 0 and _after(marker.modified_ms, rule.days, day_ms) <= now_ms)


def header(end: tuple[int, str]) -> str:
    """The value of x-amz-expiration."""
    return f'expiry-date="{http_date(end[0] // 1000)}", rule-id="{quoted(end[1])}"'


def quoted(rule_id: str) -> str:
    """A rule's id as a header has it: whatever could end or break it is percent-encoded, as S3 does."""
    return quote(rule_id, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~")


# -- as XML


def from_xml(root: Element, name_of: Iterable[str], *, varies: bool = False) -> list[Rule]:
    """`name_of` gives ids to rules without one. Raises S3Error."""
    rules = [_rule(one, name_of, varies) for one in root.all("Rule")]
    if not rules or len(rules) != len(root.children):
        raise S3Error("MalformedXML")
    if len(rules) > MOST_RULES:
        raise S3Error(
            "InvalidRequest", f"The number of lifecycle rules must not exceed the allowed limit of {MOST_RULES} rules"
        )
    if len({rule.id for rule in rules}) != len(rules):
        raise S3Error("InvalidArgument", "Rule ID must be unique. Found same ID for more than one rule")
    return rules


def _rule(element: Element, name_of: Iterable[str], varies: bool) -> Rule:
    known = {
        "Transition",
        "NoncurrentVersionTransition",
        "ID",
        "Status",
        "Filter",
        "Prefix",
        "Expiration",
        "NoncurrentVersionExpiration",
        "AbortIncompleteMultipartUpload",
    }
    names = [child.name for child in element.children]
    once = [one for one in names if one not in ("Transition", "NoncurrentVersionTransition")]
    if not known.issuperset(names) or len(set(once)) != len(once):
        raise S3Error("MalformedXML")
    status, name = element.get("Status"), element.get("ID") or next(iter(name_of))
    if status not in ("Enabled", "Disabled") or (element.get("Prefix") is None) == (not any(element.all("Filter"))):
        raise S3Error("MalformedXML")
    if len(name) > 255 or not name.isprintable() or '"' in name:
        raise S3Error("InvalidArgument", "The ID of a rule has at most 255 printable characters.")
    fields = _filter(element) | _actions(element) | _transitions(element) | {"varies": varies}
    rule = Rule(name, status == "Enabled", **fields)  # type: ignore[arg-type]
    if not (
        rule.days
        or rule.date_ms
        or rule.markers
        or rule.noncurrent_days
        or rule.abort_days
        or rule.moves
        or rule.noncurrent_moves
    ):
        raise S3Error("InvalidRequest", "At least one action needs to be specified in a rule")
    _check_moves(rule)
    narrow = rule.tags or rule.above >= 0 or rule.below >= 0
    if narrow and rule.abort_days:
        raise S3Error("InvalidRequest", "AbortIncompleteMultipartUpload cannot be specified with Tags or sizes")
    if narrow and rule.markers:
        raise S3Error("InvalidRequest", "ExpiredObjectDeleteMarker cannot be specified with Tags or sizes")
    if 0 <= rule.below <= rule.above + 1:
        raise S3Error("InvalidRequest", "ObjectSizeLessThan must be larger than ObjectSizeGreaterThan")
    return rule


def _filter(element: Element) -> dict[str, object]:
    plain = element.get("Prefix")
    if plain is not None:
        return {"prefix": plain, "old_prefix": True}
    inside = next(element.all("Filter"))
    several = list(inside.all("And"))
    if len(inside.children) > 1 or len(several) > 1 or (several and len(several[0].children) < 2):
        raise S3Error("MalformedXML")
    inside = several[0] if several else inside
    if any(one.name not in ("Prefix", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan") for one in inside.children):
        raise S3Error("MalformedXML")
    pairs = [(one.get("Key") or "", one.get("Value") or "") for one in inside.all("Tag")]
    above, below = inside.get("ObjectSizeGreaterThan"), inside.get("ObjectSizeLessThan")
    return {
        "prefix": inside.get("Prefix") or "",
        "tags": check(pairs, 10),
        "above": _number(above, 0, 1 << 50, "ObjectSizeGreaterThan") if above is not None else -1,
        "below": _number(below, 1, 1 << 50, "ObjectSizeLessThan") if below is not None else -1,
    }


def _actions(element: Element) -> dict[str, object]:
    found: dict[str, object] = {}
    for one in element.all("Expiration"):
        days, date, markers = (one.get(name) for name in ("Days", "Date", "ExpiredObjectDeleteMarker"))
        if sum(value is not None for value in (days, date, markers)) != 1 or len(one.children) != 1:
            raise S3Error("MalformedXML")
        if days is not None:
            found["days"] = _number(days, 1, MOST_DAYS, "Days")
        elif date is not None:
            found["date_ms"] = _midnight(date)
        else:
            found["markers"] = markers == "true"
    for one in element.all("NoncurrentVersionExpiration"):
        found["noncurrent_days"] = _number(one.get("NoncurrentDays") or "", 1, MOST_DAYS, "NoncurrentDays")
        newer = one.get("NewerNoncurrentVersions")
        found["newer"] = _number(newer, 1, MOST_NEWER, "NewerNoncurrentVersions") if newer is not None else 0
    for one in element.all("AbortIncompleteMultipartUpload"):
        found["abort_days"] = _number(one.get("DaysAfterInitiation") or "", 1, MOST_DAYS, "DaysAfterInitiation")
    return found


_LEAST_DAYS = {"STANDARD_IA": 30, "ONEZONE_IA": 30}  # S3 moves nothing there sooner


def _transitions(element: Element) -> dict[str, object]:
    moves, past = list[Move](), list[Move]()
    for one in element.all("Transition"):
        days, date = one.get("Days"), one.get("Date")
        if (days is None) == (date is None) or len(one.children) != 2:
            raise S3Error("MalformedXML")
        target = classes.check_target(one.get("StorageClass") or "")
        if days is not None:
            moves.append(Move(target, _days_to(target, days, "Days", "Transition")))
        else:
            moves.append(Move(target, date_ms=_midnight(date or "")))
    for one in element.all("NoncurrentVersionTransition"):
        target, newer = classes.check_target(one.get("StorageClass") or ""), one.get("NewerNoncurrentVersions")
        past.append(
            Move(
                target,
                _days_to(target, one.get("NoncurrentDays") or "", "NoncurrentDays", "NoncurrentVersionTransition"),
                newer=_number(newer, 1, MOST_NEWER, "NewerNoncurrentVersions") if newer is not None else 0,
            )
        )
    return {"moves": moves, "noncurrent_moves": past}


def _days_to(target: str, text: str, name: str, action: str) -> int:
    days, least = _number(text, 0, MOST_DAYS, name), _LEAST_DAYS.get(target, 0)
    if days < least:
        raise S3Error(
            "InvalidArgument",
            f"'{name}' in {action} action must be greater than or equal to {least} for storageClass '{target}'",
            ArgumentName=name,
            ArgumentValue=text,
        )
    return days


def _check_moves(rule: Rule) -> None:
    """Raises S3Error for moves of one rule that contradict each other, or its expiration."""
    for action, moves in (("Transition", rule.moves), ("NoncurrentVersionTransition", rule.noncurrent_moves)):
        if len({move.storage_class for move in moves}) != len(moves):
            raise S3Error("InvalidRequest", f"'StorageClass' must be different for '{action}' actions in same 'Rule'")
    dated = {bool(move.date_ms) for move in rule.moves} | ({bool(rule.date_ms)} if rule.days or rule.date_ms else set())
    if len(dated) > 1:
        raise S3Error(
            "InvalidRequest", "Found mixed 'Date' and 'Days' based Expiration and Transition actions in lifecycle rule"
        )
    for action, moves in (("Transition", rule.moves), ("NoncurrentVersionTransition", rule.noncurrent_moves)):
        _check_order(action, moves)
    for move in rule.moves:
        if (rule.days and rule.days <= move.days) or (rule.date_ms and rule.date_ms <= move.date_ms):
            raise S3Error(
                "InvalidArgument",
                "'Days' or 'Date' in the Expiration action must be greater than that in the Transition action",
            )
    for move in rule.noncurrent_moves:
        if rule.noncurrent_days and rule.noncurrent_days <= move.days:
            raise S3Error(
                "InvalidArgument",
                "'NoncurrentDays' in the NoncurrentVersionExpiration action must be greater than that in the NoncurrentVersionTransition action",
            )


def _check_order(action: str, moves: Sequence[Move]) -> None:
    """Raises S3Error where an object that has made one move could never make the next."""
    for before, after in pairwise(sorted(moves, key=lambda move: (move.date_ms, move.days))):
        later = (after.date_ms, after.days) > (before.date_ms, before.days)
        if not later or not classes.furthest(before.storage_class, [after.storage_class]):
            sooner, further = sorted((before.storage_class, after.storage_class), key=classes.AT_ONCE.index)
            raise S3Error(
                "InvalidArgument",
                f"The '{action}' action for StorageClass '{further}' must be later than that for StorageClass '{sooner}'",
            )


def _number(text: str, least: int, most: int, name: str) -> int:
    found = number(text, least, most)
    if found is None:
        raise S3Error(
            "InvalidArgument",
            f"'{name}' must be a number from {least} to {most}",
            ArgumentName=name,
            ArgumentValue=text,
        )
    return found


def _midnight(text: str) -> int:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise S3Error("MalformedXML") from None
    ms = int((found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp() * 1000)
    if ms % DAY_MS or ms <= 0:
        raise S3Error("InvalidArgument", "'Date' must be at midnight GMT")
    return ms


def to_xml(rules: Sequence[Rule]) -> str:
    return "".join(
        f"<Rule>{tag('ID', rule.id)}{_filter_xml(rule)}{tag('Status', 'Enabled' if rule.enabled else 'Disabled')}"
        f"{_actions_xml(rule)}</Rule>"
        for rule in rules
    )


def _filter_xml(rule: Rule) -> str:
    if rule.old_prefix:
        return tag("Prefix", rule.prefix)
    parts = [tag("Prefix", rule.prefix)] if rule.prefix else []
    parts += [f"<Tag>{tag('Key', name)}{tag('Value', value)}</Tag>" for name, value in rule.tags.items()]
    parts += [tag("ObjectSizeGreaterThan", rule.above)] if rule.above >= 0 else []
    parts += [tag("ObjectSizeLessThan", rule.below)] if rule.below >= 0 else []
    inner = "".join(parts) or tag("Prefix", "")
    return f"<Filter>{f'<And>{inner}</And>' if len(parts) > 1 else inner}</Filter>"


def _actions_xml(rule: Rule) -> str:
    xml = ""
    if rule.days:
        xml += f"<Expiration>{tag('Days', rule.days)}</Expiration>"
    if rule.date_ms:
        xml += f"<Expiration>{tag('Date', _date(rule.date_ms))}</Expiration>"
    if rule.markers:
        xml += "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
    if rule.noncurrent_days:
        newer = tag("NewerNoncurrentVersions", rule.newer) if rule.newer else ""
        xml += f"<NoncurrentVersionExpiration>{tag('NoncurrentDays', rule.noncurrent_days)}{newer}</NoncurrentVersionExpiration>"
    if rule.abort_days:
        xml += f"<AbortIncompleteMultipartUpload>{tag('DaysAfterInitiation', rule.abort_days)}</AbortIncompleteMultipartUpload>"
    for move in rule.moves:
        when = tag("Date", _date(move.date_ms)) if move.date_ms else tag("Days", move.days)
        xml += f"<Transition>{when}{tag('StorageClass', move.storage_class)}</Transition>"
    for move in rule.noncurrent_moves:
        newer = tag("NewerNoncurrentVersions", move.newer) if move.newer else ""
        when = tag("NoncurrentDays", move.days)
        xml += f"<NoncurrentVersionTransition>{when}{newer}{tag('StorageClass', move.storage_class)}</NoncurrentVersionTransition>"
    return xml


def _date(ms: int) -> str:
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
