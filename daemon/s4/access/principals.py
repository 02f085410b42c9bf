"""The principals of a document, as they are said and as they are kept. Pure.

A document names users and roles by their ARNs, which whoever is made next under that name would have too. So it is
kept with `ID:user/NAME` in an ARN's place, ID being what no other user or role ever has; a role's session is
`ID:session/ROLE/SESSION`. Whoever reads a kept document for judging goes by the id alone (policy.parse); whoever shows
it gives the ARN while the id is the name's, and the bare id afterwards, as AWS does. Documents that were put before
have ARNs, and go by name until they are put again. An editor must not let a client's document carry the kept form: it
is no principal that anybody may say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_KEPT = re.compile(r"([A-Z0-9]{16,32}):(user|role|session)/(.+)")
_SAID = re.compile(r"arn:aws:(?:iam|sts)::(\d{12}):(user|role|assumed-role|federated-user)/(.+)")


class Named(NamedTuple):
    """A user, a role, or a `session` of one. `rest`: a name behind its path, or ROLE/SESSION."""

    account: str
    kind: str
    rest: str

    @property
    def entity(self) -> str:
        """Who must be there: user/NAME or role/NAME."""
        if self.kind == "session":
            return f"role/{self.rest.partition('/')[0]}"
        return f"{self.kind}/{self.rest.rpartition('/')[2]}"


def said(text: str) -> Named | None:
    """Whom an ARN names; None where it names an account or everybody."""
    found = _SAID.fullmatch(text)
    if found is None:
        return None
    account, kind, rest = found.groups()
    return Named(account, "session" if kind == "assumed-role" else kind, rest)


def keep(named: Named, unique: str) -> str:
    """How a user, role or session is kept, whose unique id is given."""
    name = named.rest if named.kind == "session" else named.rest.rpartition("/")[2]
    return f"{unique}:{named.kind}/{name}"


def kept(text: str) -> tuple[str, Named] | None:
    """The unique id and whom a kept principal meant; None for others."""
    found = _KEPT.fullmatch(text)
    return (found[1], Named("", found[2], found[3])) if found is not None else None


def judged_by(text: str) -> str:
    """What an asker must have to be a principal: the id of a kept one, with its session's name; else what is said, an
    account as the ARN of its root."""
    found = kept(text)
    if found is None:
        whole = account(text)
        return f"arn:aws:iam::{whole}:root" if whole else text
    unique, named = found
    return f"{unique}:{named.rest.partition('/')[2]}" if named.kind == "session" else unique


def account(text: str) -> str:
    """The account that a principal names as a whole; empty for others."""
    found = re.fullmatch(r"(?:arn:aws:iam::)?(\d{12})(?::root)?", text)
    return found[1] if found is not None else ""


def of(document: str, kind: str = "AWS") -> set[str]:
    """The principals of a document, of a kind; none of one that cannot be read."""
    try:
        top = json.loads(document)
    except (ValueError, RecursionError):
        return set()
    return {one for element in _elements(top, kind) for one in _listed(element[kind]) if isinstance(one, str)}


def replaced(document: str, by: Mapping[str, str]) -> str:
    """A document with other names for some principals; the very text where none is in it."""
    if not by:
        return document
    top = json.loads(document)
    for element in _elements(top):
        names = [by.get(one, one) for one in _listed(element["AWS"])]
        element["AWS"] = names if isinstance(element["AWS"], list) else names[0]
    return json.dumps(top, ensure_ascii=False, separators=(",", ":"))


def _elements(top: Any, kind: str = "AWS") -> list[dict[str, Any]]:
    """The Principal and NotPrincipal elements that name some of a kind."""
    statements = top.get("Statement") if isinstance(top, dict) else None
    return [
        statement[name]
        for statement in _listed(statements)
        for name in ("Principal", "NotPrincipal")
        if isinstance(statement, dict) and isinstance(statement.get(name), dict) and kind in statement[name]
    ]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
