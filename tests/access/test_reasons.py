"""What is said of a refusal: the statement, limit or block that decided, by the same functions that decided."""

from __future__ import annotations

import json

import pytest

from s4.access.policy import Ask, Asker, Policy, parse
from s4.access.reasons import why_not
from s4.access.requester import UNREADABLE, Requester

ANA = Asker(("arn:aws:iam::000000000000:user/ana",))
ASK = Ask(ANA, "s3:GetObject", "arn:aws:s3:::photos/cat")
ALLOW = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
DENY = {"Sid": "NoCats", "Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::photos/cat"}


def of(*statements: dict[str, str], who: str = "") -> Policy:
    named = [{**one, **({"Principal": who} if who else {})} for one in statements]
    return parse(json.dumps({"Version": "2012-10-17", "Statement": named}), principals=bool(who))


@pytest.mark.parametrize(
    ("policies", "limits", "bucket", "words"),
    [
        ([of(ALLOW, DENY)], [], None, "denied by statement 'NoCats' of a policy of ana"),
        ([of(ALLOW), of({**DENY, "Sid": ""})], [], None, "denied by statement 1 of a policy of ana"),
        ([of(ALLOW)], [], of(ALLOW, DENY, who="*"), "denied by statement 'NoCats' of the bucket's policy"),
        (
            [of(ALLOW)],
            [[of({**ALLOW, "Action": "s3:PutObject"})]],
            None,
            "a permission boundary or session policy does not allow it",
        ),
        (
            [of(ALLOW)],
            [[of(ALLOW, DENY)]],
            None,
            "denied by statement 'NoCats' of a permission boundary or session policy",
        ),
        (
            [of({**ALLOW, "Action": "s3:PutObject"})],
            [],
            None,
            "no policy of ana, nor the bucket's policy or an ACL, allows it",
        ),
        ([of(ALLOW)], [], UNREADABLE, "the bucket's policy cannot be read, and so denies all"),
    ],
)
def test_what_decided_is_named(
    policies: list[Policy], limits: list[list[Policy]], bucket: Policy | None, words: str
) -> None:
    who = Requester("User", "ana", ANA, tuple(policies), tuple(map(tuple, limits)))
    assert not who.allowed(ASK, bucket)
    assert why_not(who, ASK, bucket) == f"s3:GetObject on arn:aws:s3:::photos/cat: {words}"


def test_a_block_that_keeps_strangers_out_is_named() -> None:
    nobody = Requester()
    found = why_not(nobody, Ask(nobody.asker, ASK.action, ASK.resource), of(ALLOW, who="*"), kept_out=True)
    assert "its public access block (RestrictPublicBuckets) keeps strangers out" in found
