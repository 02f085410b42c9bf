"""The policy of a form that uploads: what its fields may say, and until when. Pure.

Source: Amazon S3 API reference, "Browser-based uploads using POST": POST policy, its conditions and elements.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s4.s3.errors import S3Error

# Fields that no condition needs to name.
_FREE = frozenset(("policy", "file", "x-amz-signature", "signature", "awsaccesskeyid"))
_RANGE = "content-length-range"


@dataclass(frozen=True, slots=True)
class Condition:
    """`operator` is eq or starts-with; `shown` is the condition as its writer put it."""

    operator: str
    field: str
    value: str
    shown: str

    def holds(self, have: str) -> bool:
        if self.operator == "eq":
            return have == self.value
        # "Content-Types values for a starts-with condition that include commas are interpreted as lists."
        listed = [one.strip() for one in have.split(",")] if self.field == "content-type" else [have]
        return all(one.startswith(self.value) for one in listed)


@dataclass(frozen=True, slots=True)
class PostPolicy:
    """`least` and `most` bound the file's bytes."""

    expires_s: float
    conditions: tuple[Condition, ...]
    least: int = 0
    most: int | None = None

    def check(self, fields: Mapping[str, str], now_s: float) -> None:
        """Fields by lower-case name, the bucket among them: a policy names it, or it would be good for any. Raises
        S3Error AccessDenied."""
        if now_s >= self.expires_s:
            raise _refused("Policy expired.")
        for condition in self.conditions:
            if not condition.holds(fields.get(condition.field, "")):
                raise _refused(f"Policy Condition failed: {condition.shown}")
        named = {condition.field for condition in self.conditions} | _FREE
        extra = sorted(name for name in fields if name not in named and not name.startswith("x-ignore-"))
        if extra:
            raise _refused(f"Extra input fields: {', '.join(extra)}")


def _refused(why: str) -> S3Error:
    return S3Error("AccessDenied", f"Invalid according to Policy: {why}")


def _invalid(why: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", f"Invalid Policy: {why}")


def parse(text: str) -> PostPolicy:
    """The policy of a form's field, base64 of JSON. Raises S3Error InvalidPolicyDocument."""
    try:
        found = json.loads(base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _invalid("Invalid JSON.") from None
    if not isinstance(found, dict):
        raise _invalid("Invalid JSON.")
    for name in found:
        if name not in ("expiration", "conditions"):
            raise _invalid(f"Unexpected: '{name}'.")
    if not isinstance(found.get("expiration"), str):
        raise _invalid("Policy missing expiration.")
    if not isinstance(found.get("conditions"), list):
        raise _invalid("Policy missing conditions.")
    conditions: list[Condition] = []
    least, most = 0, None
    for one in found["conditions"]:
        if isinstance(one, list) and len(one) == 3 and str(one[0]).lower() == _RANGE:
            least, most = _bounds(one, least, most)
        else:
            conditions += _conditions(one)
    return PostPolicy(_time(found["expiration"]), tuple(conditions), least, most)


def _time(text: str) -> float:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise _invalid(f"Invalid 'expiration' value: '{text}'") from None
    if found.tzinfo is None:
        raise _invalid(f"Invalid 'expiration' value: '{text}'")
    return found.timestamp()


def _bounds(condition: list[Any], least: int, most: int | None) -> tuple[int, int]:
    """Where there are several ranges, what is in all of them."""
    low, high = (_size(condition, one) for one in condition[1:])
    return max(least, low), high if most is None else min(most, high)


def _size(condition: list[Any], value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or len(text) > 18:
        raise _invalid(f"Invalid {_RANGE}: {json.dumps(condition)}")
    return int(text)


def _conditions(condition: Any) -> list[Condition]:
    shown = json.dumps(condition)
    if isinstance(condition, dict) and condition:
        texts = [*condition, *condition.values()]
        if all(isinstance(one, str) for one in texts):
            return [Condition("eq", name.lower(), value, shown) for name, value in condition.items()]
    elif isinstance(condition, list) and len(condition) == 3 and all(isinstance(one, str) for one in condition):
        operator, field, value = condition
        if operator.lower() in ("eq", "starts-with") and field.startswith("$"):
            return [Condition(operator.lower(), field[1:].lower(), value, shown)]
    raise _invalid(f"Invalid Condition: {shown}")
