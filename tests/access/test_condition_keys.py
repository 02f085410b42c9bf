"""The table of condition keys beside AWS's own, what a document may say when it is put, and what a decision costs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access import aws
from s4.access import actions, keys
from s4.access.awsnames import NAMES
from s4.access.checks import read_new, read_new_of_bucket
from s4.access.patterns import PolicyError, matches
from s4.access.policy import ALLOW, DENY, Ask, Asker, parse
from s4.http.iam.endpoint import IAM, KINDS

# What S4 asks for: the actions of its operations, of versions, and of what comes with them.
ASKED = (
    {action for action, _ in actions.NEEDS.values()}
    | {actions.of_version(action, "v") for action, _ in actions.NEEDS.values()}
    | {"s3:BypassGovernanceRetention", "s3:GetObjectAttributes", "s3:GetObjectVersionAttributes"}
    | {f"iam:{name}" for name in IAM if f"iam:{name}" in aws.ACTIONS}
    | {"sts:AssumeRole", "sts:AssumeRoleWithWebIdentity", "sts:TagSession"}
)
# Keys that AWS has for these actions and S4 never has a value for, and why.
NOT_HERE = {
    "aws:ResourceTag/": "of buckets: S3 goes by them where a bucket's ABAC is switched on, which S4 refuses",
    "s3:BucketTag/": "the same",
    "s3:x-amz-bucket-namespace": "S4 has one namespace",
    "sts:SourceIdentity": "AssumeRole takes none",
    "sts:TransitiveTagKeys": "session tags end with their session",
    "aws:MultiFactorAuthAge": "there is no second factor",
    "aws:PrincipalOrgID": "one account",
    "aws:SourceVpc": "no VPC",
    "aws:SourceVpce": "no VPC",
}
OPENID = ("accounts.google.com:", "cognito-identity.amazonaws.com:", "graph.facebook.com:", "www.amazon.com:", "saml:")
# Where S4 has a key for an action that AWS has not: AssumeRole and TagSession are asked by one call; every request has
# a hash.
MORE = {
    ("sts:TagSession", "sts:ExternalId"),
    ("sts:TagSession", "sts:RoleSessionName"),
    *((f"s3:{verb}BucketObjectLockConfiguration", "s3:x-amz-content-sha256") for verb in ("Get", "Put")),
}
# Where AWS lists a key that nothing fills: who comes with a token brings no tags, nobody is made that has tags already;
# and no
# operation that gets round governance takes headers of a PutObject.
LESS = {
    ("s3:PutObjectAcl", "s3:x-amz-storage-class"),
    ("s3:PutObjectVersionAcl", "s3:x-amz-storage-class"),  # takes no such header
    ("sts:AssumeRoleWithWebIdentity", "aws:RequestTag/"),
    ("sts:AssumeRoleWithWebIdentity", "aws:TagKeys"),
    *((f"iam:Create{one}", "aws:ResourceTag/") for one in ("Policy", "OpenIDConnectProvider")),
    ("iam:GetAccessKeyLastUsed", "aws:ResourceTag/"),
    ("iam:GetAccessKeyLastUsed", "iam:ResourceTag/"),
}


def applies(key: str, action: str) -> bool:
    row = keys.KEYS.get(key.lower())
    return row is not None and row.applies(action.lower())


def test_every_key_applies_to_the_actions_that_aws_says() -> None:
    ours, theirs = set(), set()
    for action in ASKED:
        assert action in aws.ACTIONS, f"AWS has no action {action}"
        ours |= {(action, row.lower()) for row in keys.KEYS if applies(row, action)}
        for key in aws.keys_of(action):
            here = key not in NOT_HERE or (key == "aws:ResourceTag/" and not action.startswith("s3:"))
            if (
                action == "s3:BypassGovernanceRetention"
                and key.startswith(("s3:x-amz-", "s3:RequestObjectTag"))
                and "content" not in key
            ):
                continue
            if here and not key.startswith(OPENID) and (action, key) not in LESS:
                theirs.add((action, key.lower()))
    assert ours - theirs == {(action, key.lower()) for action, key in MORE}
    assert theirs - ours == set()


def test_every_key_is_of_the_type_that_aws_says() -> None:
    types = {
        "String": keys.TEXT,
        "ArrayOfString": keys.TEXTS,
        "Numeric": keys.NUMBER,
        "Date": keys.DATE,
        "Bool": keys.TRUTH,
        "IPAddress": keys.ADDRESS,
        "ARN": keys.ARN,
    }
    theirs = {key.lower(): types[kind] for key, kind in aws.TYPES.items() if kind in types}
    differ = {name for name, row in keys.KEYS.items() if theirs[name] != row.type}
    assert differ == {"aws:federatedprovider"}  # AWS: a text; here always an ARN


def test_what_calls_of_iam_are_about_is_said_once() -> None:
    about = {kind: {name for name in IAM if KINDS.get(name) == kind} for kind in actions.ON}
    assert about == {kind: set(names) for kind, names in actions.ON.items()}


@pytest.mark.parametrize(
    "written",
    ["first", "alias/first", "arn:aws:kms:us-east-1:000000000000:key/first", "arn:aws:kms:eu-west-1:1:alias/first"],
)
def test_a_key_of_the_kms_is_the_same_however_it_is_written(written: str) -> None:
    """By whoever asks, and in a policy: a Deny must not miss it."""

    def said(operator: str, value: str) -> str:
        block = {operator: {keys.KMS_KEY: value}}
        policy = parse(
            json.dumps({"Version": "2012-10-17", "Statement": {**GOOD, "Action": "s3:PutObject", "Condition": block}}),
            principals=True,
        )
        facts = keys.Facts(
            {"x-amz-server-side-encryption-aws-kms-key-id": written},
            {},
            "PutObject",
            0.0,
            about={"aws:principaltag/key": ("first",)},
        )
        context = keys.for_action({**keys.context_of(facts), **(facts.about or {})}, "s3:PutObject")
        return policy.decide(Ask(Asker(()), "s3:PutObject", "arn:aws:s3:::b/k", context))

    arn, other = "arn:aws:kms:us-west-2:7:key/", "arn:aws:kms:us-east-1:000000000000:key/other"
    for operator, value in (
        ("StringEquals", "first"),
        ("StringEquals", "alias/first"),
        ("StringEquals", f"{arn}first"),
        ("ArnEquals", f"{arn}first"),
        ("ArnLike", "arn:aws:kms:*:*:key/fi*"),
        ("StringLike", "*:key/fir?t"),
        ("StringLike", "arn:aws:kms:us-*"),
        ("ArnLike", "arn:*:*:*:*:*"),
        ("StringNotEquals", other),
        ("ArnNotLike", other),
        ("ArnNotEqualsIfExists", other),
        ("ArnEquals", arn + "${aws:PrincipalTag/key}"),
        ("Null", "false"),
    ):
        assert said(operator, value) == DENY, (operator, value)
    for operator, value in (
        ("StringEquals", other),
        ("ArnLike", other),
        ("StringNotEquals", f"{arn}first"),
        ("ArnNotEquals", f"{arn}first"),
        ("ArnLike", arn + "${aws:username}"),
    ):
        assert said(operator, value) != DENY, (operator, value)


# -- what is refused when it is put

GOOD = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"Condition": {"StringEquals": {"s3:prefixx": "a"}}}, "no such thing as the condition key s3:prefixx"),
        ({"Condition": {"StringEquals": {"aws:SourceIP4": "a"}}}, "no such thing"),
        ({"Condition": {"StringEquals": {"sourceip": "a"}}}, "no such thing"),
        ({"Condition": {"StringEquals": {"aws:PrincipalTag/": "a"}}}, "no such thing"),
        ({"Condition": {"Null": {"aws:PrincipalOrgID": "true"}}}, "never has a value"),
        ({"Condition": {"StringEquals": {"s3:prefix": "a"}}}, "do not apply"),
        ({"Condition": {"StringEquals": {"s3:VersionId": "a"}}}, "do not apply"),
        ({"Condition": {"StringEquals": {"ec2:Region": "a"}}}, "no such thing"),
        ({"Condition": {"ArnEquals": {"iam:PolicyARN": "arn:aws:iam::aws:policy/a"}}}, "do not apply"),
        ({"NotAction": "s3:List*", "Action": None, "Condition": {"StringEquals": {"s3:prefix": "a"}}}, "do not apply"),
        ({"Condition": {"StringEqualz": {"aws:username": "a"}}}, "no condition operator"),
        ({"Condition": {"IpAdress": {"aws:SourceIp": "10.0.0.0/8"}}}, "no condition operator"),
        ({"Condition": {"NumericEquals": {"aws:username": "1"}}}, "does not fit"),
        ({"Condition": {"StringEquals": {"aws:SourceIp": "10.0.0.0/8"}}}, "does not fit"),
        ({"Condition": {"BinaryEquals": {"aws:username": "YQ=="}}}, "does not fit"),
        ({"Condition": {"NullIfExists": {"aws:username": "true"}}}, "Null takes"),
        ({"Condition": {"ForAllValues:Null": {"aws:username": "true"}}}, "Null takes"),
        ({"Resource": "arn:aws:s3:::b/${aws:nobody}"}, "no such thing as the variable"),
        ({"Condition": {"StringEquals": {"aws:username": "${s3:prefix}"}}}, "do not apply"),
        ({"Action": "s3:GetObjetc"}, "invalid action"),
        ({"Action": ["s3:GetObject", "s3:Gte*"]}, "invalid action"),
        ({"Action": "iam:CreateUser"}, "invalid action"),
        ({"Resource": "arn:aws:s3:::b"}, "does not apply to any resource"),
        ({"Action": ["s3:GetObject", "s3:ListBucket"]}, "does not apply to any resource"),
        ({"Resource": "arn:aws:s3:::c/*"}, "invalid resource"),
    ],
)
def test_a_bucket_policy_that_can_never_come_true_is_refused_in_words(change: dict[str, Any], why: str) -> None:
    read_new_of_bucket(json.dumps({"Version": "2012-10-17", "Statement": [GOOD]}), "b")
    statement = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(PolicyError, match=why):
        read_new_of_bucket(json.dumps({"Version": "2012-10-17", "Statement": [statement]}), "b")


@pytest.mark.parametrize(
    "change",
    [
        {"Action": "ec2:RunInstances", "Condition": {"StringEquals": {"ec2:InstanceType": "t2.micro"}}},
        {"Action": "s3:GetJobTagging"},
        {"Action": "*", "Condition": {"StringLike": {"s3:prefix": "a*"}}},
        {
            "Action": "iam:*",
            "Condition": {"ArnEquals": {"iam:PermissionsBoundary": "arn:aws:iam::000000000000:policy/x"}},
        },
        {"Action": "s4:Admin", "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}},
        {"NotAction": "s3:GetObject", "Action": None, "Condition": {"StringLike": {"s3:prefix": "a*"}}},
        {"Condition": {"StringEquals": {"AWS:UserName": "a", "s3:existingobjecttag/Team": "b"}}},
        {"Resource": "arn:aws:s3:::b/${aws:username}/${aws:PrincipalTag/team, 'none'}/${*}"},
    ],
)
def test_a_users_policy_may_name_what_iam_takes(change: dict[str, Any]) -> None:
    statement = {name: value for name, value in {**GOOD, **change, "Principal": None}.items() if value is not None}
    read_new(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def test_variables_need_the_version_that_has_them() -> None:
    statement = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/${aws:username}/*"}
    for document in ({"Statement": [statement]}, {"Version": "2008-10-17", "Statement": [statement]}):
        with pytest.raises(PolicyError, match="variables"):
            read_new(json.dumps(document))


# -- what is kept from 0.7


@pytest.mark.parametrize(
    ("key", "effect", "bites"),
    [
        ("aws:Sourceip4", DENY, True),
        ("aws:Sourceip4", ALLOW, False),
        ("nonsense", DENY, True),
        ("aws:SourceVpc", DENY, False),
        ("ec2:Region", DENY, False),
        ("aws:username", DENY, False),
    ],
)
def test_an_unknown_key_of_a_kept_document_allows_nothing_and_denies(key: str, effect: str, bites: bool) -> None:
    document = {
        "Statement": [{"Effect": effect, "Action": "*", "Resource": "*", "Condition": {"StringEquals": {key: "a"}}}]
    }
    assert (parse(json.dumps(document)).decide(Ask(Asker(), "s3:GetObject", "arn:aws:s3:::b/x")) == effect) is bites


def test_the_name_that_0_7_had_for_a_legal_hold_still_works() -> None:
    document = {
        "Statement": [
            {
                "Effect": DENY,
                "Action": "*",
                "Resource": "*",
                "Condition": {"StringEquals": {"s3:x-amz-object-lock-legal-hold": "ON"}},
            }
        ]
    }
    ask = Ask(Asker(), "s3:PutObject", "arn:aws:s3:::b/x", {"s3:object-lock-legal-hold": ("ON",)})
    assert parse(json.dumps(document)).decide(ask) == DENY


# -- tags whose keys differ in case only


@pytest.mark.parametrize(
    "operator",
    [
        "StringEquals",
        "StringNotEquals",
        "StringLike",
        "ForAllValues:StringEquals",
        "ForAnyValue:StringNotEquals",
        "StringEqualsIfExists",
    ],
)
@pytest.mark.parametrize("tags", [{"team": "red", "Team": "blue"}, {"Team": "blue", "team": "red"}])
def test_of_two_tags_that_differ_in_case_a_deny_meets_one_and_an_allow_needs_both(
    operator: str, tags: dict[str, str]
) -> None:
    def decided(effect: str, named: dict[str, str]) -> str:
        document = {
            "Statement": [
                {
                    "Effect": effect,
                    "Action": "*",
                    "Resource": "*",
                    "Condition": {operator: {"s3:RequestObjectTag/team": "red"}},
                }
            ]
        }
        return parse(json.dumps(document)).decide(Ask(Asker(), "s3:PutObject", "arn:aws:s3:::b/x", keys.of_tags(named)))

    alone = [decided(DENY, {name: value}) for name, value in tags.items()]
    assert (decided(DENY, tags) == DENY) is (DENY in alone)
    assert (decided(ALLOW, tags) == ALLOW) is (DENY not in ["" if one else DENY for one in alone])


# -- what a decision costs


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
def test_patterns_match_as_the_model(pattern: str, text: str) -> None:
    from access.naive import like

    assert matches(pattern, text) == like(pattern, text)


def steps(call: Callable[[], Any]) -> int:
    """Lines of s4.access that a call runs."""
    found = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal found
        if "s4/access/" not in frame.f_code.co_filename:
            return None
        found += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return found


@pytest.mark.parametrize(
    "pattern",
    [
        "*" + "a?" * 2000 + "b*",
        "*" + "a" * 4000 + "b*",
        "*?a" * 1300 + "*c*",
        ("*" + "a" * 20) * 200 + "b",
        "a*" * 2000 + "b",
    ],
)
def test_a_pattern_takes_steps_by_its_length_alone(pattern: str) -> None:
    assert not matches(pattern, "a" * 16_000)
    assert steps(lambda: matches(pattern, "a" * 16_000)) <= 20 * len(pattern)
    assert abs(steps(lambda: matches(pattern, "a" * 16_000)) - steps(lambda: matches(pattern, "a" * 8_000))) < 100


def test_what_does_not_depend_on_the_key_is_evaluated_once_for_all_keys() -> None:
    """Four long globs over a long User-Agent, asked for each key of a DeleteObjects: the first pays for all."""
    globs = ["*" + ("a" * 40 + "*") * 100 + str(number) for number in range(4)]
    statement = {
        "Effect": DENY,
        "Action": "s3:DeleteObject",
        "Resource": "arn:aws:s3:::b/*",
        "Condition": {"StringLike": {"aws:UserAgent": globs}},
    }
    policy = parse(json.dumps({"Statement": [statement]}))
    context, memo = {"aws:useragent": ("a" * 15_000,)}, {}  # type: ignore[var-annotated]

    def ask(key: str) -> int:
        return steps(lambda: policy.decide(Ask(Asker(), "s3:DeleteObject", f"arn:aws:s3:::b/{key}", context, memo)))

    first, second = ask("one"), ask("two")
    assert first > 100 and second < 20, (first, second)


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("s3:GetObjetc", "there is no action s3:getobjetc; did you mean s3:getobject"),
        ("s3:Gte*", "no action s3:gte"),
        ("iam:CreateUsers", "did you mean iam:createuser"),
        ("sts:AssumeRoles", "sts:assumerole"),
        ("s4:Admim", "s4:admin"),
        ("aws:Anything", ""),
        ("ec2:RunInstances", ""),
        ("s3:*", ""),
        ("*", ""),
        ("s3:CreateJob", ""),
        ("s3:ListAllMyBuckets", ""),
        ("iam:?reateUser", ""),
        ("sts:*", ""),
        ("s4:*", ""),
    ],
)
def test_a_policy_of_iam_names_actions_that_exist(action: str, why: str) -> None:
    statement = {"Effect": "Deny", "Action": ["s3:GetObject", action], "Resource": "*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    assert parse(text)  # what is kept already stays
    if not why:
        assert read_new(text)
        return
    with pytest.raises(PolicyError, match=re.escape(why)):
        read_new(text)


def test_the_actions_that_exist_are_those_of_aws_and_s4s_own() -> None:
    assert {action for names in NAMES.values() for action in names} == {action.lower() for action in aws.ACTIONS} | {
        "s4:admin"
    }
