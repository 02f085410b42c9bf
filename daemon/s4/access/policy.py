"""Policy documents: reading, checking and deciding. Pure.

Source: AWS IAM user guide, "Policy evaluation logic" and "IAM JSON policy element reference"; Amazon S3 user guide,
"Policies and permissions in Amazon S3".

Invariants: a document is read whole or refused (`PolicyError`), so nothing is decided by half a policy; a statement
that denies wins over every one that allows; what no statement names is not allowed. A condition on a key that the
request lacks holds for negated operators, `...IfExists` and `ForAllValues:` only, as IAM has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from s4.access import keys, principals
from s4.access.conditions import Condition, has_wildcards, is_positive
from s4.access.conditions import read as read_conditions
from s4.access.patterns import Context, PolicyError, as_object, filled, matches, variables

ACCOUNT = keys.ACCOUNT
ALLOW, DENY = "Allow", "Deny"
OF_ANONYMOUS: dict[str, tuple[str, ...]] = {  # condition keys of who signs nothing
    "aws:principaltype": ("Anonymous",),
    "aws:userid": ("anonymous",),
}
VERSIONS = ("2012-10-17", "2008-10-17")


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks. `arns` are all names of it, its own first; a role's session has its role's too. Empty: anonymous.
    `ids` are unique ids of the same, by which kept documents name it."""

    arns: tuple[str, ...] = ()
    canonical: str = ""
    ids: tuple[str, ...] = ()

    def is_named(self, principals: Mapping[str, tuple[str, ...]], *, by_account: bool) -> bool:
        """Whether principals name this asker. An account names everyone in it only where `by_account`."""
        listed = principals.get("aws", ())
        if "*" in listed:
            return True
        if not self.arns:
            return False
        if by_account and f"arn:aws:iam::{ACCOUNT}:root" in listed:
            return True
        if self.canonical and self.canonical in principals.get("canonicaluser", ()):
            return True
        federated = principals.get("federated", ())
        return any(one in listed or one in federated for one in (*self.arns, *self.ids))


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked: an action such as s3:GetObject, on an ARN."""

    asker: Asker
    action: str
    resource: str
    context: Context = field(default_factory=dict)
    memo: Memo | None = None


# What one request leaves of statements for one action, whatever key it asks for: None where the statement cannot apply,
# else
# the resources that are filled, those with variables yet, and the conditions that are left. The statement is kept with
# it, so
# that its id stays its own.
Left = tuple[tuple[str, ...], tuple[str, ...], tuple[Condition, ...]]
Memo = dict[tuple[int, str], "tuple[Statement, Left | None]"]


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
    sid: str = ""

    def names_action(self, action: str) -> bool:
        """Administration is allowed by `*` or by name: who allows all but some of AWS's actions does not think of
        it."""
        text = action.lower()
        if self.not_actions and self.effect == ALLOW and text.startswith("s4:"):
            return False
        return any(matches(pattern, text) for pattern in self.actions) != self.not_actions

    def allows_all(self, action: str, bucket_arn: str, *, keys: bool) -> bool:
        """Whether a statement without conditions allows an action on a bucket, or on every key in it. A pattern that
        ends in `/*` has every key of the buckets that the rest names."""
        if self.not_resources or not self.names_action(action):
            return False
        if keys:
            return any(
                one == "*" or (one.endswith("/*") and "${" not in one and matches(one[:-2], bucket_arn))
                for one in self.resources
            )
        return any("${" not in one and matches(one, bucket_arn) for one in self.resources)

    def applies(self, ask: Ask) -> bool:
        left = self._left(ask)
        if left is None:
            return False
        ready, varying, conditions = left
        named = any(matches(one, ask.resource) for one in ready) or any(
            (pattern := filled(text, ask.context)) is not None and matches(pattern, ask.resource) for text in varying
        )
        if self.resources and named == self.not_resources:
            return False
        return all(condition.holds(ask.context, deny=self.effect == DENY) for condition in conditions)

    def may_apply(self, ask: Ask) -> bool:
        """Whether it applies, if it is to this resource."""
        return self._left(ask) is not None

    def _left(self, ask: Ask) -> Left | None:
        """What is still to be looked at for a resource; looked for once for all that a request asks."""
        if ask.memo is None:
            return self._narrowed(ask)
        name = id(self), ask.action
        if name not in ask.memo:
            ask.memo[name] = self, self._narrowed(ask)
        return ask.memo[name][1]

    def _narrowed(self, ask: Ask) -> Left | None:
        if not self.names_action(ask.action):
            return None
        if self.principals is not None:
            # An account stands for all in it where less is allowed by that. Spared by NotPrincipal is who is named.
            by_account = (self.effect == DENY) != self.not_principals
            if ask.asker.is_named(self.principals, by_account=by_account) == self.not_principals:
                return None
        deny = self.effect == DENY
        if not all(one.varies or one.holds(ask.context, deny=deny) for one in self.conditions):
            return None
        varying = tuple(text for text in self.resources if any(keys.is_asked(name) for name in variables(text)))
        ready = (filled(text, ask.context) for text in self.resources if text not in varying)
        conditions = tuple(one for one in self.conditions if one.varies)
        return tuple(one for one in ready if one is not None), varying, conditions


@dataclass(frozen=True, slots=True)
class Policy:
    """A document's statements."""

    statements: tuple[Statement, ...]
    version: str = VERSIONS[0]

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

    def may_deny(self, ask: Ask) -> bool:
        """Whether a statement denies an action on anything at all, be it on what is asked for or not."""
        return any(one.effect == DENY and one.may_apply(ask) for one in self.statements)

    def asks_for(self, prefix: str) -> bool:
        """Whether a condition or variable is about a key that begins so."""
        for statement in self.statements:
            if any(condition.key.startswith(prefix) for condition in statement.conditions):
                return True
            texts = [*statement.resources, *(str(value) for one in statement.conditions for value in one.values)]
            if any(name.startswith(prefix) for text in texts for name in variables(text)):
                return True
        return False

    @property
    def everything(self) -> bool:
        """Whether it allows all there is, and denies nothing."""
        whole = any(
            one.effect == ALLOW
            and one.actions == ("*",)
            and one.resources == ("*",)
            and one.principals is None
            and not (one.not_actions or one.not_resources or one.conditions)
            for one in self.statements
        )
        return whole and all(one.effect == ALLOW for one in self.statements)

    @property
    def public(self) -> bool:
        """Whether it lets anybody in: S3's meaning of "public"."""
        return any(one.effect == ALLOW and _is_public(one) for one in self.statements)


# Conditions that tie everybody down to some, if their values are fixed. Source: S3 user guide, "The meaning of public".
_FIXING = (
    "aws:sourceip",
    "aws:principalorgid",
    "aws:principalarn",
    "aws:principalaccount",
    "aws:sourcearn",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:sourceowner",
    "aws:sourceaccount",
    "aws:userid",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "s3:dataaccesspointarn",
    "s3:dataaccesspointaccount",
)


def _is_public(statement: Statement) -> bool:
    if statement.principals is None:
        return False
    if not statement.not_principals and "*" not in statement.principals.get("aws", ()):
        return False
    for one in statement.conditions:
        positive = is_positive(one.operator) and not one.if_exists and one.every is not True
        fixing = one.key in _FIXING and positive and not one.holds(OF_ANONYMOUS)
        if fixing and all(_is_fixed(one, value) for value in one.values):
            return False
    return True


def _is_fixed(condition: Condition, value: Any) -> bool:
    if condition.key == "aws:sourceip":
        return bool(getattr(value, "prefixlen", 0) >= (32 if getattr(value, "version", 4) == 6 else 8))
    wild = ("*", "${", "?") if has_wildcards(condition.operator) else ("*", "${")
    return not any(one in str(value) for one in wild)


# -- reading


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
    for kind, names in as_object(value, "Principal").items():
        if kind not in PRINCIPAL_KINDS:
            raise PolicyError(f"Invalid principal in policy: {kind} is none of {', '.join(PRINCIPAL_KINDS)}")
        texts = _texts(names, f"Principal {kind}")
        for text in texts:
            if kind == "AWS" and principals.kept(text) is not None:
                continue
            if ("*" in text and text != "*") or (kind == "AWS" and not _is_principal(text)):
                raise PolicyError(f"Invalid principal in policy: {text}")
        found[PRINCIPAL_KINDS[kind]] = tuple(map(principals.judged_by, texts)) if kind == "AWS" else texts
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


_ELEMENTS = frozenset(
    {
        "Sid",
        "Effect",
        "Principal",
        "NotPrincipal",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
    }
)


def _statement(value: Any, *, principals: bool, resources: bool) -> Statement:
    statement = as_object(value, "Statement")
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
            raise PolicyError(f"Policy has invalid action: {action} is not written as SERVICE:NAME")
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
        statement["Effect"],
        tuple(name.lower() for name in names),
        held,
        not_actions,
        not_resources,
        _principals(who) if who is not None else None,
        not_principals,
        read_conditions(statement.get("Condition", {})),
        statement.get("Sid", ""),
    )


def parse(text: str, *, principals: bool = False, resources: bool = True) -> Policy:
    """Read a document. `principals`: it is of a bucket or role, whose statements name some. Raises PolicyError."""
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    except PolicyError:
        raise
    except (ValueError, RecursionError) as error:
        raise PolicyError("This policy contains invalid Json") from error
    top = as_object(document, "A policy")
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
    statements = tuple(_statement(one, principals=principals, resources=resources) for one in listed)
    return Policy(statements, top.get("Version", VERSIONS[1]))
