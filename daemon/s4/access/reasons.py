"""Why somebody may not do something: which statement denies it, or which limit or allowance is missing. Pure.

For people who look into the log after a refusal; a client is told AccessDenied and nothing else. It reads the same
policies by the same functions as the decision does (requester.py), so it cannot say otherwise than what was decided.
"""

from __future__ import annotations

from collections.abc import Sequence

from s4.access.policy import ALLOW, DENY, Ask, Policy
from s4.access.requester import UNREADABLE, Requester


def denying(policy: Policy, ask: Ask) -> str:
    """The statement that denies, by its Sid or number; empty where none does."""
    for number, one in enumerate(policy.statements, 1):
        if one.effect == DENY and one.applies(ask):
            return f"statement {one.sid!r}" if one.sid else f"statement {number}"
    return ""


def allowing(who: Requester, ask: Ask, of_bucket: Policy | None) -> str:
    """What allows something that is allowed: a statement, by its Sid or number."""
    name = who.name or "anonymous"
    for policy, whose in (*((one, f"a policy of {name}") for one in who.policies), (of_bucket, "the bucket's policy")):
        for number, one in enumerate(policy.statements if policy is not None else (), 1):
            if one.effect == ALLOW and one.applies(ask):
                said = f"statement {one.sid!r}" if one.sid else f"statement {number}"
                return f"{ask.action} on {ask.resource}: allowed by {said} of {whose}"
    return ""


def why_not(who: Requester, ask: Ask, of_bucket: Policy | None, *, kept_out: bool = False) -> str:
    """`of_bucket` is the bucket's policy as it is written; `kept_out`: the bucket's public access block keeps this
    requester from what it allows."""
    name = who.name or "anonymous"
    what = f"{ask.action} on {ask.resource}"
    for policy, whose in (*((one, f"a policy of {name}") for one in who.policies), (of_bucket, "the bucket's policy")):
        if policy is UNREADABLE:
            return f"{what}: {whose} cannot be read, and so denies all"
        if policy is not None and (said := denying(policy, ask)):
            return f"{what}: denied by {said} of {whose}"
    for limit in who.limits:
        if text := _limited(limit, ask):
            return f"{what}: {text}"
    if kept_out and of_bucket is not None and of_bucket.decide(ask) == ALLOW:
        return f"{what}: the bucket's policy allows it, but its public access block (RestrictPublicBuckets) keeps strangers out"
    return f"{what}: no policy of {name}, nor the bucket's policy or an ACL, allows it"


def _limited(limit: Sequence[Policy], ask: Ask) -> str:
    for policy in limit:
        if said := denying(policy, ask):
            return f"denied by {said} of a permission boundary or session policy"
    if not any(policy.decide(ask) == ALLOW for policy in limit):
        return "a permission boundary or session policy does not allow it"
    return ""
