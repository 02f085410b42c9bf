"""Policy documents: reading, checking and deciding. Pure.

Source: AWS IAM user guide, "Policy evaluation logic" and "IAM JSON policy element reference"; Amazon S3 user guide,
"Policies and permissions in Amazon S3".

Invariants: a document is read whole or refused (`PolicyError`), so nothing is decided by half a policy; a statement
that denies wins over every one that allows; what no statement names is not allowed. A condition on a key that the
request lacks holds for negated operators, `...IfExists` and `ForAllValues:` only, as IAM has it.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

ACCOUNT = "000000000000"  # S4 is one account
ALLOW, DENY = "Allow", "Deny"
VERSIONS = ("2012-10-17", "2008-10-17")

Context = Mapping[str, tuple[str, ...]]  # condition keys in lower case
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_KEPT = {"*": "\ue000", "?": "\ue001", "$": "$"}  # ${*} is a star that is no wildcard


class PolicyError(ValueError):
    """A document that is no policy; the message says what to change."""


@lru_cache(maxsize=4096)
def glob(pattern: str) -> re.Pattern[str]:
    """A pattern with `*` and `?` as an expression for `fullmatch`, in time that is bounded by text times pattern."""
    parts = ["".join("." if char == "?" else re.escape(char) for char in part) for part in pattern.split("*")]
    if len(parts) == 1:
        found = parts[0]
    else:  # atomic: a part that was found first is never looked for again
        found = parts[0] + "".join(f"(?>.*?{part})" for part in parts[1:-1] if part) + f".*{parts[-1]}"
    return re.compile(found.replace(_KEPT["*"], r"\*").replace(_KEPT["?"], r"\?"), re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    return pattern == "*" or glob(pattern).fullmatch(text) is not None


def filled(pattern: str, context: Context) -> str | None:
    """A pattern with its variables; None where the request lacks one, so that nothing matches."""
    if "${" not in pattern:
        return pattern
    lacking = False

    def value(match: re.Match[str]) -> str:
        nonlocal lacking
        name, comma, default = match[1].partition(",")
        if name in _KEPT:
            return _KEPT[name]
        found = context.get(name.strip().lower(), ())
        if len(found) != 1:
            lacking = lacking or not comma
            return default.strip().strip("'")
        return found[0].replace("*", _KEPT["*"]).replace("?", _KEPT["?"])

    made = _VARIABLE.sub(value, pattern)
    return None if lacking else made


def plain(pattern: str) -> str:
    """What `filled` gives, for a comparison without wildcards."""
    return pattern.replace(_KEPT["*"], "*").replace(_KEPT["?"], "?")


# -- conditions


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
for _name, _of in (("stringnotequals", "stringequals"), ("stringnotequalsignorecase", "stringequalsignorecase"),
                   ("stringnotlike", "stringlike"), ("numericnotequals", "numericequals"), ("datenotequals", "dateequals"),
                   ("notipaddress", "ipaddress"), ("arnnotequals", "arnequals"), ("arnnotlike", "arnlike")):  # fmt: skip
    _OPERATORS[_name] = (*_OPERATORS[_of][:2], True)
_WITH_VARIABLES = ("string", "arn")


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of one operator. `values` are texts where they may hold variables, else what the operator reads."""

    operator: str
    every: bool | None  # ForAllValues, ForAnyValue, or neither
    if_exists: bool
    key: str
    values: tuple[Any, ...]

    def holds(self, context: Context) -> bool:
        have = context.get(self.key, ())
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


def _conditions(block: Any) -> tuple[Condition, ...]:
    found = []
    for name, keys in _object(block, "Condition").items():
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
        for key, value in _object(keys, f"Condition {name}").items():
            texts = [_scalar(one) for one in (value if isinstance(value, list) else [value])]
            if not texts:
                raise PolicyError(f"the condition {name} on {key} has no value")
            found.append(Condition(operator, every, if_exists, key.lower(), _values(name, operator, texts)))
    return tuple(found)


def _values(name: str, operator: str, texts: list[str]) -> tuple[Any, ...]:
    if operator.startswith(_WITH_VARIABLES):
        if operator.startswith("arn"):
            for text in texts:
                _read(name, _check_arn, text)
        return tuple(texts)
    return tuple(_read(name, _truth if operator == "null" else _OPERATORS[operator][0], text) for text in texts)


def _read(name: str, read: Read, text: str) -> Any:
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


# -- statements


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks. `arns` are all names of it, its own first; a role's session has its role's too. Empty: anonymous."""

    arns: tuple[str, ...] = ()
    canonical: str = ""

    def is_named(self, principals: Mapping[str, tuple[str, ...]], *, by_account: bool) -> bool:
        """Whether principals name this asker. An account names everyone in it only where `by_account`."""
        listed = principals.get("aws", ())
        if "*" in listed:
            return True
        if not self.arns:
            return False
        if by_account and (ACCOUNT in listed or f"arn:aws:iam::{ACCOUNT}:root" in listed):
            return True
        if self.canonical and self.canonical in principals.get("canonicaluser", ()):
            return True
        federated = principals.get("federated", ())
        return any(one in listed or one in federated for one in self.arns)


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked: an action such as s3:GetObject, on an ARN."""

    asker: Asker
    action: str
    resource: str
    context: Context = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Statement:
    effect: str
    actions: tuple[str, ...]  # in lower case
    resources: tuple[str, ...]
    not_actions: bool = False
    not_resources: bool = False
    principals: Mapping[str, tuple[str, ...]] | None = None
    not_principals: bool = False
    conditions: tuple[Condition, ...] = ()

    def names_action(self, action: str) -> bool:
        text = action.lower()
        return any(matches(pattern, text) for pattern in self.actions) != self.not_actions

    def applies(self, ask: Ask) -> bool:
        if not self.names_action(ask.action):
            return False
        if self.principals is not None:
            by_account = self.effect == DENY or self.not_principals
            if ask.asker.is_named(self.principals, by_account=by_account) == self.not_principals:
                return False
        named = any(
            (pattern := filled(text, ask.context)) is not None and matches(pattern, ask.resource)
            for text in self.resources
        )
        if self.resources and named == self.not_resources:
            return False
        return all(condition.holds(ask.context) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Policy:
    """A document's statements."""

    statements: tuple[Statement, ...]

    def decide(self, ask: Ask) -> str:
        """ALLOW, DENY, or empty where no statement applies."""
        found = ""
        for statement in self.statements:
            if (statement.effect == DENY or not found) and statement.applies(ask):
                if statement.effect == DENY:
                    return DENY
                found = ALLOW
        return found

    def may_allow(self, action: str) -> bool:
        """Whether a statement allows an action on anything at all."""
        return any(one.effect == ALLOW and one.names_action(action) for one in self.statements)

    def asks_for(self, prefix: str) -> bool:
        """Whether a condition or variable is about a key that begins so."""
        for statement in self.statements:
            if any(condition.key.startswith(prefix) for condition in statement.conditions):
                return True
            texts = [*statement.resources, *(str(value) for one in statement.conditions for value in one.values)]
            if any(match.lower().startswith(prefix) for text in texts for match in _VARIABLE.findall(text)):
                return True
        return False

    @property
    def everything(self) -> bool:
        """Whether it allows all there is, and denies nothing."""
        whole = any(
            one.effect == ALLOW and one.actions == ("*",) and one.resources == ("*",) and one.principals is None
            and not (one.not_actions or one.not_resources or one.conditions)
            for one in self.statements
        )  # fmt: skip
        return whole and all(one.effect == ALLOW for one in self.statements)

    @property
    def public(self) -> bool:
        """Whether it lets anybody in: S3's meaning of "public"."""
        return any(one.effect == ALLOW and _is_public(one) for one in self.statements)


# Conditions that tie everybody down to some, if their values are fixed. Source: S3 user guide, "The meaning of public".
_FIXING = (
    "aws:sourceip", "aws:principalorgid", "aws:principalarn", "aws:principalaccount", "aws:sourcearn", "aws:sourcevpc",
    "aws:sourcevpce", "aws:sourceowner", "aws:sourceaccount", "aws:userid", "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "s3:dataaccesspointarn", "s3:dataaccesspointaccount",
)  # fmt: skip


def _is_public(statement: Statement) -> bool:
    if statement.principals is None:
        return False
    if not statement.not_principals and "*" not in statement.principals.get("aws", ()):
        return False
    for one in statement.conditions:
        positive = (
            one.operator in _OPERATORS
            and not _OPERATORS[one.operator][2]
            and not one.if_exists
            and one.every is not True
        )
        if one.key in _FIXING and positive and all(_is_fixed(one, value) for value in one.values):
            return False
    return True


def _is_fixed(condition: Condition, value: Any) -> bool:
    if condition.key == "aws:sourceip":
        return bool(getattr(value, "prefixlen", 0) >= 8)
    return "*" not in str(value) and "${" not in str(value)


# -- reading


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PolicyError(f"{what} must be an object")
    return value


def _texts(value: Any, what: str) -> tuple[str, ...]:
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(one, str) and one for one in found):
        raise PolicyError(f"{what} must be a text or a list of texts")
    return tuple(found)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise PolicyError("a name is given twice in one object")
    return found


PRINCIPAL_KINDS = {"AWS": "aws", "CanonicalUser": "canonicaluser", "Federated": "federated", "Service": "service"}


def _principals(value: Any) -> dict[str, tuple[str, ...]]:
    if value == "*":
        return {"aws": ("*",)}
    found: dict[str, tuple[str, ...]] = {}
    for kind, names in _object(value, "Principal").items():
        if kind not in PRINCIPAL_KINDS:
            raise PolicyError("Invalid principal in policy")
        texts = _texts(names, f"Principal {kind}")
        for text in texts:
            if ("*" in text and text != "*") or (kind == "AWS" and not _is_principal(text)):
                raise PolicyError("Invalid principal in policy")
        found[PRINCIPAL_KINDS[kind]] = texts
    if not found:
        raise PolicyError("Invalid principal in policy")
    return found


def _is_principal(text: str) -> bool:
    return (
        text == "*"
        or re.fullmatch(r"\d{12}|arn:aws:(iam|sts)::\d{12}:(root|(user|role|assumed-role|federated-user)/.+)", text)
        is not None
    )


def _either(statement: dict[str, Any], name: str, *, required: bool) -> tuple[Any, bool]:
    """(value, whether it is the Not form) of an element that may have either form."""
    has, has_not = name in statement, f"Not{name}" in statement
    if has and has_not:
        raise PolicyError(f"a statement cannot have both {name} and Not{name}")
    if required and not has and not has_not:
        raise PolicyError(f"Missing required field {name}")
    return (statement.get(name, statement.get(f"Not{name}")), has_not)


_ELEMENTS = frozenset({
    "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition",
})  # fmt: skip


def _statement(value: Any, *, principals: bool, resources: bool) -> Statement:
    statement = _object(value, "Statement")
    unknown = statement.keys() - _ELEMENTS
    if unknown:
        raise PolicyError(f"a statement has no element {', '.join(sorted(unknown))}")
    if not isinstance(statement.get("Sid", ""), str):
        raise PolicyError("Sid must be a text")
    if statement.get("Effect") not in (ALLOW, DENY):
        raise PolicyError("Effect must be Allow or Deny")
    actions, not_actions = _either(statement, "Action", required=True)
    for action in (names := _texts(actions, "Action")):
        if action != "*" and not re.fullmatch(r"[A-Za-z0-9-]+:[A-Za-z0-9*?]+", action):
            raise PolicyError("Policy has invalid action")
    named, not_resources = _either(statement, "Resource", required=resources)
    if not resources and named is not None:
        raise PolicyError("Has prohibited field Resource")
    who, not_principals = _either(statement, "Principal", required=principals)
    if not principals and who is not None:
        raise PolicyError("Policy document should not specify a principal.")
    held = _texts(named, "Resource") if named is not None else ()
    if any(text != "*" and not text.startswith("arn:") for text in held):
        raise PolicyError("Policy has invalid resource")
    return Statement(
        statement["Effect"], tuple(name.lower() for name in names), held, not_actions, not_resources,
        _principals(who) if who is not None else None, not_principals, _conditions(statement.get("Condition", {})),
    )  # fmt: skip


def parse(text: str, *, principals: bool = False, resources: bool = True) -> Policy:
    """Read a document. `principals`: it is of a bucket or role, whose statements name some. Raises PolicyError."""
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    except PolicyError:
        raise
    except (ValueError, RecursionError) as error:
        raise PolicyError("This policy contains invalid Json") from error
    top = _object(document, "A policy")
    unknown = top.keys() - {"Version", "Id", "Statement"}
    if unknown:
        raise PolicyError(f"a policy has no element {', '.join(sorted(unknown))}")
    if top.get("Version", VERSIONS[1]) not in VERSIONS:
        raise PolicyError(f"The policy must contain a valid version string: {VERSIONS[0]}")
    listed = top.get("Statement")
    if isinstance(listed, dict):
        listed = [listed]
    if not isinstance(listed, list) or not listed:
        raise PolicyError("Missing required field Statement")
    return Policy(tuple(_statement(one, principals=principals, resources=resources) for one in listed))
