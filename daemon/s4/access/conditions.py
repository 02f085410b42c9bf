"""The Condition block of a statement: its operators, and whether a request fulfils them. Pure.

Source: AWS IAM user guide, "IAM JSON policy elements: Condition operators".
"""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from s4.access import keys
from s4.access.patterns import Context, PolicyError, as_object, filled, matches, plain, variables


def _number(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite():
        raise ValueError(f"{text} is not a number")
    return value


def _date(text: str) -> float:
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text)
    found = datetime.datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _network(text: str) -> Any:
    return ipaddress.ip_network(text, strict=False)


def _in_network(address: str, network: Any) -> bool:
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found) in network


def _arn(pattern: str, text: str) -> bool:
    """Each of the six parts for itself, so that a star does not reach over a colon."""
    wanted, found = pattern.split(":", 5), text.split(":", 5)
    return len(wanted) == len(found) == 6 and all(matches(*pair) for pair in zip(wanted, found, strict=True))


def _check_arn(pattern: str) -> str:
    if len(pattern.split(":", 5)) != 6:
        raise ValueError(f"{pattern!r} is not an ARN")
    return pattern


def _same(text: str) -> str:
    return text


Test = Callable[[str, Any], bool]
Read = Callable[[str], Any]

# operator -> (reads a policy's value, compares a request's value with it, negated)
_OPERATORS: dict[str, tuple[Read, Test, bool]] = {
    "stringequals": (_same, lambda have, want: have == plain(want), False),
    "stringequalsignorecase": (_same, lambda have, want: have.lower() == plain(want).lower(), False),
    "stringlike": (_same, lambda have, want: matches(want, have), False),
    "numericequals": (_number, lambda have, want: _number(have) == want, False),
    "numericlessthan": (_number, lambda have, want: _number(have) < want, False),
    "numericlessthanequals": (_number, lambda have, want: _number(have) <= want, False),
    "numericgreaterthan": (_number, lambda have, want: _number(have) > want, False),
    "numericgreaterthanequals": (_number, lambda have, want: _number(have) >= want, False),
    "dateequals": (_date, lambda have, want: _date(have) == want, False),
    "datelessthan": (_date, lambda have, want: _date(have) < want, False),
    "datelessthanequals": (_date, lambda have, want: _date(have) <= want, False),
    "dategreaterthan": (_date, lambda have, want: _date(have) > want, False),
    "dategreaterthanequals": (_date, lambda have, want: _date(have) >= want, False),
    "bool": (_truth, lambda have, want: _truth(have) == want, False),
    "binaryequals": (base64.b64decode, lambda have, want: base64.b64decode(have) == want, False),
    "ipaddress": (_network, _in_network, False),
    "arnequals": (_check_arn, lambda have, want: _arn(want, have), False),
    "arnlike": (_check_arn, lambda have, want: _arn(want, have), False),
}
_NEGATED = {
    "stringnotequals": "stringequals",
    "stringnotequalsignorecase": "stringequalsignorecase",
    "stringnotlike": "stringlike",
    "numericnotequals": "numericequals",
    "datenotequals": "dateequals",
    "notipaddress": "ipaddress",
    "arnnotequals": "arnequals",
    "arnnotlike": "arnlike",
}
_OPERATORS.update({_name: (*_OPERATORS[_of][:2], True) for _name, _of in _NEGATED.items()})
_WITH_VARIABLES = ("string", "arn")
_BEFORE_NAME = re.compile(r"[^${}]*/")  # of the name of a KMS key: a variable may have a slash in it
_AS_TEXT = {
    "arnequals": "stringlike",
    "arnlike": "stringlike",
    "arnnotequals": "stringnotlike",
    "arnnotlike": "stringnotlike",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of one operator. `values` are texts where they may hold variables, else what the operator reads."""

    operator: str
    every: bool | None  # ForAllValues, ForAnyValue, or neither
    if_exists: bool
    key: str
    values: tuple[Any, ...]
    unknown: bool = False  # the key is none: of a document that was put before such were refused
    many: bool = False  # the key has a list of values
    varies: bool = False  # it may hold for one thing that a request asks and not for another

    def holds(self, context: Context, *, deny: bool = False) -> bool:
        """`deny`: of a statement that denies. What cannot be told is told so that less is allowed: an unknown key, and
        a key of one value that has several, which are those of tags whose keys differ in case only."""
        if self.unknown:
            return deny
        have = context.get(self.key, ())
        if len(have) < 2 or self.many:
            return self._holds(have, context)
        each = (self._holds((value,), context) for value in have)
        return any(each) if deny else all(each)

    def _holds(self, have: tuple[str, ...], context: Context) -> bool:
        if self.operator == "null":
            return any(want != bool(have) for want in self.values)
        _, test, negated = _OPERATORS[self.operator]
        if not have:
            return self.if_exists or self.every is True or (negated and self.every is None)
        wanted: list[Any] = list(self.values)
        if self.operator.startswith(_WITH_VARIABLES):
            wanted = [value for text in self.values if (value := filled(text, context)) is not None]

        def one(text: str) -> bool:
            return any(_safely(test, text, want) for want in wanted) != negated

        if self.every is True:
            return all(one(text) for text in have)
        if self.every is False or not negated:
            return any(one(text) for text in have)
        return all(one(text) for text in have)


def _safely(test: Test, have: str, want: Any) -> bool:
    """A request's value that is not of the operator's type equals nothing."""
    try:
        return test(have, want)
    except (ValueError, InvalidOperation, TypeError, binascii.Error):
        return False


def read(block: Any) -> tuple[Condition, ...]:
    found = []
    for name, named in as_object(block, "Condition").items():
        every: bool | None = None
        operator = name
        for prefix, meaning in (("forallvalues:", True), ("foranyvalue:", False)):
            if name.lower().startswith(prefix):
                operator, every = name[len(prefix) :], meaning
        operator = operator.lower()
        if_exists = operator.endswith("ifexists") and operator != "null"
        operator = operator.removesuffix("ifexists")
        if operator != "null" and operator not in _OPERATORS:
            raise PolicyError(f"there is no condition operator {name}")
        for key, value in as_object(named, f"Condition {name}").items():
            texts = [_scalar(one) for one in (value if isinstance(value, list) else [value])]
            if not texts:
                raise PolicyError(f"the condition {name} on {key} has no value")
            found.append(_condition(name, operator, every, if_exists, key.lower(), texts))
    return tuple(found)


def _condition(name: str, operator: str, every: bool | None, if_exists: bool, key: str, texts: list[str]) -> Condition:
    key = keys.RENAMED.get(key, key)
    if key == "s3:x-amz-copy-source":  # some write it with a slash before the bucket
        texts = [text.removeprefix("/") for text in texts]
    values = _values(name, operator, texts)
    if (
        key == keys.KMS_KEY and operator != "null"
    ):  # a name, an alias or an ARN of whatever region: the name is what a request has
        values = tuple(map(_key_name, texts))
        operator = _AS_TEXT.get(operator, operator)
    row = keys.find(key)
    ours = key.partition(":")[0] in keys.SERVICES or ":" not in key
    varies = keys.is_asked(key) or any(keys.is_asked(one) for text in texts for one in variables(text))
    unknown, many = row is None and ours and key not in keys.NEVER, row is not None and row.type == keys.TEXTS
    return Condition(operator, every, if_exists, key, values, unknown, many, varies)


def _key_name(text: str) -> str:
    """What a policy's value says of the name of a KMS key."""
    if text.startswith("arn:") and "/" not in text:
        return "*" if "*" in text else text
    return _BEFORE_NAME.sub("", text, count=1)


def _values(name: str, operator: str, texts: list[str]) -> tuple[Any, ...]:
    if operator.startswith(_WITH_VARIABLES):
        if operator.startswith("arn"):
            for text in texts:
                _value(name, _check_arn, text)
        return tuple(texts)
    return tuple(_value(name, _truth if operator == "null" else _OPERATORS[operator][0], text) for text in texts)


def _value(name: str, read: Read, text: str) -> Any:
    try:
        return read(text)
    except (ValueError, InvalidOperation, binascii.Error) as error:
        raise PolicyError(f"the condition {name} cannot have the value {text!r}") from error


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise PolicyError("a condition's value must be a text, a number or a truth value")


def family(operator: str) -> str:
    """What an operator compares: string, numeric, date, bool, binary, ip, arn or null."""
    plainly = _NEGATED.get(operator, operator)
    return next(
        one for one in ("string", "numeric", "date", "bool", "binary", "ip", "arn", "null") if plainly.startswith(one)
    )


def has_wildcards(operator: str) -> bool:
    """Whether an operator compares with patterns, in which ? stands for any character."""
    return operator.startswith("arn") or operator.endswith("like")


def is_positive(operator: str) -> bool:
    """Whether an operator holds for what a value is, not for what it is not."""
    return operator in _OPERATORS and not _OPERATORS[operator][2]
