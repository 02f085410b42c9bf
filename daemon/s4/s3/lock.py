"""Object lock as requests and answers write it. Pure. Source: API: PutObjectLockConfiguration, PutObjectRetention."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from s4.metadata.locks import COMPLIANCE, GOVERNANCE
from s4.metadata.rows import Object
from s4.s3.errors import S3Error
from s4.s3.names import exact_date, number
from s4.s3.xml import Element, tag

MODE, UNTIL, HOLD = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date", "x-amz-object-lock-legal-hold"
ASKED = frozenset((MODE, UNTIL, HOLD))
BYPASS = "x-amz-bypass-governance-retention"
ENABLED = "x-amz-bucket-object-lock-enabled"
DAY_MS = 86_400_000
MOST_DAYS, MOST_YEARS = 36_500, 100


class Lock(NamedTuple):
    """What a version is locked by. `until_ms` is in milliseconds since 1970; `told` where a legal hold was put, ON or
    OFF."""

    mode: str = ""
    until_ms: int = 0
    hold: bool = False
    told: bool = False


class Default(msgspec.Struct, frozen=True):
    """A bucket's default retention: days, or years of 365 days."""

    mode: str = ""
    days: int = 0
    years: int = 0

    @property
    def lasts_ms(self) -> int:
        return (self.days + 365 * self.years) * DAY_MS


NONE = Lock()


def wants_bypass(headers: Mapping[str, str]) -> bool:
    """Whether a request asks to get round governance."""
    return headers.get(BYPASS, "").lower() == "true"


def from_headers(headers: Mapping[str, str], now_ms: int) -> Lock:
    """What a write asks for. Raises S3Error."""
    if ASKED.isdisjoint(headers):
        return NONE
    mode, until, hold = (headers.get(name, "") for name in (MODE, UNTIL, HOLD))
    if bool(mode) != bool(until):
        raise S3Error("InvalidArgument", f"{MODE} and {UNTIL} must both be supplied", ArgumentName=MODE)
    if hold not in ("", "ON", "OFF"):
        raise S3Error("InvalidArgument", "Legal Hold must be either of 'ON' or 'OFF'", ArgumentName=HOLD)
    if not mode:
        return Lock(hold=hold == "ON", told=bool(hold))
    if mode not in (GOVERNANCE, COMPLIANCE):
        raise S3Error("InvalidArgument", "Unknown wormMode directive.", ArgumentName=MODE, ArgumentValue=mode)
    return Lock(mode, _until(until, now_ms), hold == "ON", bool(hold))


def _until(text: str, now_ms: int) -> int:
    try:
        found = datetime.datetime.fromisoformat(text)
        until_ms = int((found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise S3Error(
            "InvalidArgument", "The retain until date must be provided in ISO 8601 format", ArgumentName=UNTIL
        ) from None
    if until_ms <= now_ms:
        raise S3Error("InvalidArgument", "The retain until date must be in the future!", ArgumentName=UNTIL)
    return until_ms


def _refuse_events(element: Element, *names: str) -> None:
    """Raises S3Error NotImplemented: S4 has no holds that end with an event."""
    for name in names:
        if any(element.all(name)):
            raise S3Error("NotImplemented", f"S4 does not implement {name}.")


def retention_from_xml(root: Element, now_ms: int) -> tuple[str, int]:
    """(mode, until) of a Retention; empty for none. Raises S3Error."""
    _refuse_events(root, "EventHold", "EventHoldDuration")
    mode, until = root.get("Mode") or "", root.get("RetainUntilDate") or ""
    if not mode and not until:
        return "", 0
    if mode not in (GOVERNANCE, COMPLIANCE) or not until:
        raise S3Error("MalformedXML")
    return mode, _until(until, now_ms)


def retention_to_xml(mode: str, until_ms: int) -> str:
    return tag("Mode", mode) + tag("RetainUntilDate", exact_date(until_ms))


def hold_from_xml(root: Element) -> bool:
    status = root.get("Status")
    if status not in ("ON", "OFF"):
        raise S3Error("MalformedXML")
    return status == "ON"


def hold_of(row: Object) -> str:
    """ON or OFF; empty where a legal hold was never put."""
    return "ON" if row.legal_hold else "OFF" if row.hold_told else ""


def default_from_xml(root: Element) -> Default | None:
    """A bucket's default retention, None where there is none. Raises S3Error."""
    if root.get("ObjectLockEnabled") != "Enabled":
        raise S3Error("MalformedXML")
    rules = list(root.all("Rule"))
    if not rules:
        return None
    retentions = list(rules[0].all("DefaultRetention"))
    if len(rules) > 1 or len(retentions) != 1:
        raise S3Error("MalformedXML")
    _refuse_events(retentions[0], "DefaultEventHold")
    mode, days, years = (retentions[0].get(name) for name in ("Mode", "Days", "Years"))
    if mode not in (GOVERNANCE, COMPLIANCE) or (days is None) == (years is None):
        raise S3Error("MalformedXML")
    length = number(days or years or "", 1, MOST_DAYS if days is not None else MOST_YEARS)
    if length is None:
        raise S3Error("InvalidArgument", "Default retention period must be a positive integer value.")
    return Default(mode, length if days is not None else 0, length if years is not None else 0)


def default_to_xml(default: Default | None) -> str:
    rule = ""
    if default is not None:
        length = tag("Days", default.days) if default.days else tag("Years", default.years)
        rule = f"<Rule><DefaultRetention>{tag('Mode', default.mode)}{length}</DefaultRetention></Rule>"
    return tag("ObjectLockEnabled", "Enabled") + rule
