"""Random policies and requests: what S4 decides beside a naive evaluator that reads AWS's own tables (aws_*.tsv).

S4's side begins at the request: headers and query are turned into condition keys by the program's table. The naive
side writes down what each part of the request says in AWS's words, keeps what AWS's tables list for the action, and
evaluates the JSON by AWS's rules (naive.py): an explicit deny, else an allow of identity or resource, else no, and
every limit must allow. Operators of all families, IfExists, ForAllValues, ForAnyValue, Null, variables.
`S4_POLICY_CASES=100000` runs more."""

from __future__ import annotations

import json
import random
from typing import Any

from access import aws, naive
from s4.access import keys
from s4.access.checks import read_new
from s4.access.patterns import PolicyError
from s4.access.policy import Ask, Asker
from s4.access.requester import requester
from tiers import amount

ANA = "arn:aws:iam::000000000000:user/ana"
ACTIONS = (
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:PutObject",
    "s3:PutObjectTagging",
    "s3:ListBucket",
    "s3:DeleteObject",
    "s3:PutObjectAcl",
    "s3:PutObjectRetention",
)
OPERATION = {"s3:ListBucket": "ListObjectsV2", "s3:GetObjectVersion": "GetObject"}
PATTERNS = ("*", "s3:*", "s3:Get*", "s3:Put*", "s3:?etObject", "S3:listbucket", *ACTIONS)
RESOURCES = (
    "*",
    "arn:aws:s3:::b",
    "arn:aws:s3:::b/*",
    "arn:aws:s3:::b/${aws:username}/*",
    "arn:aws:s3:::?/*x",
    "arn:aws:s3:::b/${aws:PrincipalTag/team, 'none'}*",
)
# key -> (operators of its type, values in policies)
CONDITIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **dict.fromkeys(
        (
            "aws:username",
            "aws:UserAgent",
            "s3:prefix",
            "s3:delimiter",
            "s3:x-amz-acl",
            "s3:x-amz-copy-source",
            "s3:ExistingObjectTag/team",
            "s3:RequestObjectTag/team",
            "s3:RequestObjectTagKeys",
            "s3:versionid",
            "aws:PrincipalTag/team",
            "s3:if-none-match",
            "s3:object-lock-mode",
            "s3:x-amz-storage-class",
        ),
        (
            ("StringEquals", "StringNotEquals", "StringLike", "StringNotLike"),
            ("ana", "a*", "?na", "b/a*", "private", "team", "", "${aws:username}", "*", "GOVERNANCE", "STANDARD", "v1"),
        ),
    ),
    **dict.fromkeys(("s3:max-keys", "s3:object-lock-remaining-retention-days"), (("NumericLessThan",), ("5", "100"))),
    "aws:SecureTransport": (("Bool",), ("true", "false")),
    "s3:ObjectCreationOperation": (("Bool",), ("true", "false")),
    "aws:SourceIp": (("IpAddress", "NotIpAddress"), ("10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/24")),
}


def statement(rng: random.Random, *, principal: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Effect": rng.choice(("Allow", "Allow", "Deny")),
        rng.choice(("Action", "Action", "NotAction")): rng.sample(PATTERNS, rng.randint(1, 3)),
        rng.choice(("Resource", "Resource", "NotResource")): rng.sample(RESOURCES, rng.randint(1, 2)),
    }
    if principal:
        found[rng.choice(("Principal", "NotPrincipal"))] = {
            "AWS": rng.choice((ANA, "arn:aws:iam::000000000000:user/bob"))
        }
    block: dict[str, Any] = {}
    for key in rng.sample(list(CONDITIONS), rng.choice((0, 0, 1, 1, 2))):
        operators, values = CONDITIONS[key]
        name = (
            rng.choice(("", "", "", "ForAllValues:", "ForAnyValue:"))
            + rng.choice(operators)
            + rng.choice(("", "", "IfExists"))
        )
        if rng.random() < 0.15:
            name, values = "Null", ("true", "false")
        block.setdefault(name, {})[key] = rng.sample(values, rng.randint(1, min(2, len(values))))
    return {**found, "Condition": block} if block else found


def document(rng: random.Random, *, principal: bool = False) -> dict[str, Any]:
    """One that is taken. Refused is what AWS keeps and never meets: a key that none of a statement's actions has."""
    while True:
        made = {
            "Version": "2012-10-17",
            "Statement": [statement(rng, principal=principal) for _ in range(rng.randint(1, 3))],
        }
        try:
            read_new(json.dumps(made), principals=principal)
        except PolicyError as error:
            assert "do not apply" in str(error), (made, error)
        else:
            return made


def request(rng: random.Random, action: str) -> tuple[keys.Facts, dict[str, tuple[str, ...]], dict[str, list[str]]]:
    """(the request, what its asker says is asked, the same in AWS's words)."""

    def maybe(*values: str) -> str | None:
        return rng.choice((None, *values))

    # S4 refuses the header x-amz-storage-class of a PutObjectAcl, for which AWS lists the key.
    version, held = "v1" if action.endswith("Version") else "", {"team": "ana"} if rng.random() < 0.5 else {}
    tags, tls, remote = (
        rng.choice(({}, {"team": "ana"}, {"other": "a", "team": "team"})),
        rng.choice(("", "1.3")),
        rng.choice(("10.1.2.3", "10.9.0.1", "8.8.8.8")),
    )
    query = {
        name: value
        for name, value in (
            ("prefix", maybe("", "ana", "b/a")),
            ("delimiter", maybe("", "team")),
            ("max-keys", maybe("3", "50")),
        )
        if value is not None
    }
    headers = {
        name: value
        for name, value in (
            ("user-agent", maybe("ana", "other")),
            ("x-amz-acl", maybe("private", "")),
            ("x-amz-storage-class", maybe("STANDARD") if action == "s3:PutObject" else None),
            ("if-none-match", maybe("*")),
            ("x-amz-tagging", "&".join(f"{one}={value}" for one, value in tags.items()) or None),
        )
        if value is not None
    }
    operation = OPERATION.get(action, action[3:])
    said = {f"s3:{name}": [value] for name, value in query.items()} | {
        f"s3:{name}": [value]
        for name, value in headers.items()
        if name.startswith(("x-amz-acl", "x-amz-storage", "if-"))
    }
    if operation == "PutObject" and rng.random() < 0.3:
        operation, headers["x-amz-copy-source"] = (
            "CopyObject",
            rng.choice(("b/ana", "%2Fb%2Fa", "/b/%61na?versionId=v9")),
        )
        said["s3:x-amz-copy-source"] = ["b/a" if "Fa" in headers["x-amz-copy-source"] else "b/ana"]
        if rng.random() < 0.5:
            headers["x-amz-tagging-directive"] = "REPLACE"
    if operation != "CopyObject" or "x-amz-tagging-directive" in headers:
        said |= {f"s3:requestobjecttag/{name}": [value] for name, value in tags.items()} | (
            {"s3:requestobjecttagkeys": list(tags)} if tags else {}
        )
    said |= {"aws:useragent": [headers["user-agent"]]} if "user-agent" in headers else {}
    said |= {
        "aws:username": ["ana"],
        "aws:principaltag/team": ["a*"],
        "aws:securetransport": ["true" if tls else "false"],
        "aws:sourceip": [remote],
        "s3:objectcreationoperation": ["true"],
    }
    said |= ({"s3:versionid": [version]} if version else {}) | {
        f"s3:existingobjecttag/{name}": [value] for name, value in held.items()
    }
    more: dict[str, tuple[str, ...]] = {**keys.existing_tags(held), **({"s3:versionid": (version,)} if version else {})}
    if action == "s3:PutObjectRetention":
        more |= keys.of_lock("GOVERNANCE", 50 * 86_400_000, 0)
        said |= {"s3:object-lock-mode": ["GOVERNANCE"], "s3:object-lock-remaining-retention-days": ["50"]}
    about = {"aws:username": ("ana",), "aws:principaltag/team": ("a*",)}
    return keys.Facts(headers, query, operation, 1.8e9, remote, tls, about=about), more, said


def of_aws(action: str, said: dict[str, list[str]]) -> dict[str, list[str]]:
    """What AWS's tables list for an action."""
    listed = [key.lower() for key in aws.keys_of(action)]
    return {
        name: value
        for name, value in said.items()
        if any(name == key or (key.endswith("/") and name.startswith(key)) for key in listed)
    }


def test_policies_decide_as_aws_documents_it() -> None:
    cases, first = amount("S4_POLICY_CASES", 600, 100_000), amount("S4_POLICY_SEED", 1, 1)
    decided = {True: 0, False: 0}
    for seed in range(first, first + cases):
        rng = random.Random(seed)
        groups = [
            [document(rng) for _ in range(rng.randint(1, 2))],
            *([document(rng)] for _ in range(rng.choice((0, 0, 1, 2)))),
        ]
        of_bucket, action = document(rng, principal=True) if rng.random() < 0.5 else None, rng.choice(ACTIONS)
        resource = (
            "arn:aws:s3:::b"
            if action == "s3:ListBucket"
            else rng.choice(("arn:aws:s3:::b/ana/x", "arn:aws:s3:::b/a*", "arn:aws:s3:::c/x", "arn:aws:s3:::b/none"))
        )
        facts, more, said = request(rng, action)
        context = of_aws(action, said)
        own, *limits = [[read_new(json.dumps(one)) for one in group] for group in groups]
        policy = read_new(json.dumps(of_bucket), principals=True) if of_bucket else None
        ask = Ask(Asker((ANA,)), action, resource, keys.for_action({**keys.context_of(facts), **more}, action), {})
        ours = requester("User", "ana", [ANA], own, limits).allowed(ask, policy)
        said_of = [[naive.decide(one, ANA, action, resource, context) for one in group] for group in groups]
        by_bucket = naive.decide(of_bucket, ANA, action, resource, context) if of_bucket else ""
        every = [one for group in said_of for one in group] + [by_bucket]
        theirs = (
            "Deny" not in every
            and "Allow" in (*said_of[0], by_bucket)
            and all("Allow" in group for group in said_of[1:])
        )
        assert ours == theirs, (seed, action, resource, context, groups, of_bucket)
        decided[ours] += 1
    assert min(decided.values()) * 20 > cases, decided
    print(f"{cases} cases: {decided[True]} allowed, {decided[False]} refused")
