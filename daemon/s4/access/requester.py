"""Who asks for something, and whether it may. Pure.

    allowed = nothing denies, and
              (the requester's own policies allow it, or the bucket's policy does), and
              every limit allows it (permission boundary, session policies, the parent's policies)

Stricter than IAM in one point: a limit also bounds what a bucket's policy grants, so that no credential ever does more
than the one it was made from. A document that cannot be read denies everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from s4.access.patterns import PolicyError
from s4.access.policy import ACCOUNT, ALLOW, DENY, OF_ANONYMOUS, Ask, Asker, Policy, Statement, parse
from s4.metadata.canonical import canonical_id
from s4.metadata.rows import Grant

READER, WRITER, SUPER_USER = "Reader", "Writer", "SuperUser"
MEMO = 1000
ROLES = (READER, WRITER, SUPER_USER)
ROOT, USER, ROLE, ANONYMOUS = "Account", "User", "AssumedRole", "Anonymous"

UNREADABLE = Policy((Statement(DENY, ("*",), ("*",)),))

# What a Writer may not do to its buckets: let others in, and get round a lock.
_OWNERS_ONLY = (
    "s3:putbucketpolicy",
    "s3:deletebucketpolicy",
    "s3:putbucketacl",
    "s3:putobjectacl",
    "s3:putobjectversionacl",
    "s3:putbucketpublicaccessblock",
    "s3:putbucketownershipcontrols",
    "s3:bypassgovernanceretention",
)


def parse_grant(text: str) -> Grant:
    """A grant written as "Role" or "Role:bucket-pattern". Raises ValueError."""
    role, _, buckets = text.partition(":")
    if role not in ROLES:
        raise ValueError(f"there is no role {role!r}; choose one of {', '.join(ROLES)}, such as Writer:photos-*")
    return Grant(role, buckets or "*")


def policy_of(grant: Grant) -> Policy:
    """Reader reads and lists. Writer also writes, deletes, and makes and deletes buckets. Both within the buckets whose
    names match. SuperUser may do everything, the admin interface included, whatever the pattern."""
    if grant.role == SUPER_USER:
        return Policy((Statement(ALLOW, ("*",), ("*",)),))
    resources = (f"arn:aws:s3:::{grant.buckets}", f"arn:aws:s3:::{grant.buckets}/*")
    if grant.role == WRITER:
        return Policy((Statement(ALLOW, _OWNERS_ONLY, resources, not_actions=True),))
    return Policy((Statement(ALLOW, ("s3:get*", "s3:list*"), resources),))


@lru_cache(maxsize=10_000)
def read(document: str) -> Policy:
    """A stored document of a user, group or role."""
    return _read(document, principals=False)


@lru_cache(maxsize=10_000)
def read_of_bucket(document: str) -> Policy:
    """A stored policy of a bucket."""
    return _read(document, principals=True)


def _read(document: str, *, principals: bool) -> Policy:
    try:
        return parse(document, principals=principals)
    except PolicyError:
        return UNREADABLE


def user_arn(name: str, path: str = "/") -> str:
    return f"arn:aws:iam::{ACCOUNT}:user{path}{name}"


@dataclass(frozen=True, slots=True)
class Requester:
    """`limits` are sets of policies, of each of which one must allow. `about` are condition keys of the requester."""

    kind: str = ANONYMOUS
    name: str = ""
    asker: Asker = field(default_factory=Asker)
    policies: tuple[Policy, ...] = ()
    limits: tuple[tuple[Policy, ...], ...] = ()
    about: dict[str, tuple[str, ...]] = field(default_factory=dict)
    everything: bool = False
    plain: bool = False  # its policies only allow, without conditions, and nothing limits them
    memo: dict[tuple[str, str, bool], bool] = field(default_factory=dict)
    rate: tuple[int, int] = (0, 0)  # of requests and bytes a second, where it has one of its own

    def allowed(self, ask: Ask, of_bucket: Policy | None = None, *, granted: bool = False) -> bool:
        """`granted`: an ACL allows it."""
        said = [policy.decide(ask) for policy in self.policies]
        by_bucket = of_bucket.decide(ask) if of_bucket is not None else ""
        limited = [[policy.decide(ask) for policy in limit] for limit in self.limits]
        if DENY in said or by_bucket == DENY or any(DENY in one for one in limited):
            return False
        if not (granted or ALLOW in said or by_bucket == ALLOW):
            return False
        return all(ALLOW in one for one in limited)

    def plainly(self, action: str, bucket: str, *, keys: bool) -> bool:
        """Whether its own policies allow an action on a bucket, or on every key in it, whatever else is asked."""
        if not self.plain:
            return False
        asked = action, bucket, keys
        found = self.memo.get(asked)
        if found is None:
            arn = f"arn:aws:s3:::{bucket}"
            found = any(one.allows_all(action, arn, keys=keys) for policy in self.policies for one in policy.statements)
            if len(self.memo) < MEMO:
                self.memo[asked] = found
        return found

    def may_somewhere(self, action: str) -> bool:
        """Whether any policy allows an action on anything at all."""
        return any(policy.may_allow(action) for policy in self.policies)


NOBODY = Requester(about=OF_ANONYMOUS)


def requester(
    kind: str,
    name: str,
    arns: Sequence[str],
    policies: Sequence[Policy],
    limits: Sequence[Sequence[Policy]] = (),
    about: Mapping[str, tuple[str, ...]] | None = None,
    ids: Sequence[str] = (),
    canonical: str = "",
) -> Requester:
    """`arns`: its own name first. `about`: more condition keys. `ids`: those that are never given out again.
    `canonical`: by which ACLs name it, where that is not made of its name."""
    everything = (
        any(one.everything for one in policies)
        and all(one.effect == ALLOW for policy in policies for one in policy.statements)
        and not limits
    )
    statements = [one for policy in policies for one in policy.statements]
    plain = all(one.effect == ALLOW and not one.conditions for one in statements) and not limits
    keys = {
        "aws:principalarn": (arns[-1],),
        "aws:principalaccount": (ACCOUNT,),
        "aws:principaltype": (kind,),
        **(about or {}),
    }
    return Requester(
        kind,
        name,
        Asker(tuple(arns), canonical or canonical_id(name), tuple(ids)),
        tuple(policies),
        tuple(tuple(one) for one in limits),
        keys,
        everything,
        plain,
    )
