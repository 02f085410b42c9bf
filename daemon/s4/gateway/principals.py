"""Documents with principals, on their way in and out: ARNs become ids that no namesake gets (access/principals.py)."""

from __future__ import annotations

from s4.access import principals
from s4.access.patterns import PolicyError
from s4.access.policy import ACCOUNT
from s4.access.principals import Named
from s4.gateway.accounts import Accounts
from s4.metadata.canonical import canonical_id
from s4.metadata.rows import Provider, Role, User


async def keep(accounts: Accounts, document: str) -> str:
    """A document as it is kept. Raises PolicyError where it names somebody who is not there."""
    by: dict[str, str] = {}
    await _check_others(accounts, document)
    for text in principals.of(document):
        named = principals.said(text)
        if named is None:
            account = principals.account(text)
            if account not in ("", ACCOUNT):
                raise PolicyError(f"Invalid principal in policy: {text}. The one account here is {ACCOUNT}.")
            continue
        found = await _entity(accounts, named) if named.account == ACCOUNT else None
        if found is None or _arn(named, found) != text:
            raise PolicyError(f"Invalid principal in policy: {text}")
        if found.id:  # the oldest users have none: they stay named
            by[text] = principals.keep(named, found.id)
    return principals.replaced(document, by)


async def _check_others(accounts: Accounts, document: str) -> None:
    """Principals that are not of AWS's kind exist too. Raises PolicyError."""
    for text in principals.of(document, "Federated"):
        head, _, url = text.partition(":oidc-provider/")
        if head != f"arn:aws:iam::{ACCOUNT}" or await accounts.get(Provider, url) is None:
            raise PolicyError(f"Invalid principal in policy: {text}. There is no such OpenID Connect provider.")
    for text in principals.of(document, "Service"):
        raise PolicyError(f"Invalid principal in policy: {text}. No service asks S4 for anything.")
    named = principals.of(document, "CanonicalUser")
    if named:
        known = {canonical_id("root")}
        known |= {row.canonical or canonical_id(name) for name, row in await accounts.all(User)}
        known |= {row.canonical or canonical_id(f"role/{name}") for name, row in await accounts.all(Role)}
        for text in sorted(named - known):
            raise PolicyError(f"Invalid principal in policy: {text}. Nobody has this canonical id.")


async def show(accounts: Accounts, document: str) -> str:
    """A kept document as whoever put it knows it."""
    by: dict[str, str] = {}
    for text in principals.of(document):
        kept = principals.kept(text)
        if kept is not None:
            unique, named = kept
            found = await _entity(accounts, named)
            by[text] = _arn(named, found) if found is not None and found.id == unique else unique
    return principals.replaced(document, by)


async def _entity(accounts: Accounts, named: Named) -> User | Role | None:
    kind, _, name = named.entity.partition("/")
    if kind == "user":
        return await accounts.get(User, name)
    return await accounts.get(Role, name) if kind == "role" else None


def _arn(named: Named, found: User | Role) -> str:
    if named.kind == "session":
        return f"arn:aws:sts::{ACCOUNT}:assumed-role/{named.rest}"
    return f"arn:aws:iam::{ACCOUNT}:{named.kind}{found.path}{found.name}"
