"""Policies against an independent model, and what must hold of every one."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access import naive
from s4.access.patterns import PolicyError
from s4.access.policy import ALLOW, DENY, Ask, Asker, parse
from s4.access.requester import UNREADABLE, parse_grant, policy_of, read, requester

ANA, BOB = "arn:aws:iam::000000000000:user/ana", "arn:aws:iam::000000000000:user/bob"
ACTIONS = ("s3:GetObject", "s3:PutObject", "s3:ListBucket")
RESOURCES = ("arn:aws:s3:::b", "arn:aws:s3:::b/ana/x", "arn:aws:s3:::b/a*", "arn:aws:s3:::c/x")
PATTERNS = (
    "*",
    "arn:aws:s3:::b",
    "arn:aws:s3:::b/*",
    "arn:aws:s3:::b/${aws:username}/*",
    "arn:aws:s3:::?/*x",
    "arn:aws:s3:::b/${s3:prefix}",
)
KEYS = ("aws:username", "s3:prefix", "aws:TagKeys")
TEXTS = ("ana", "bob", "a*", "?na", "${aws:username}", "")


def some(values: tuple[str, ...]) -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from(values), st.lists(st.sampled_from(values), min_size=1, max_size=3))


def conditions() -> st.SearchStrategy[dict[str, Any]]:
    texts = st.tuples(
        st.sampled_from(("", "ForAllValues:", "ForAnyValue:")),
        st.sampled_from(("StringEquals", "StringNotEquals", "StringLike", "StringNotLike")),
        st.sampled_from(("", "IfExists")),
        st.sampled_from(KEYS),
        some(TEXTS),
    ).map(lambda parts: {parts[0] + parts[1] + parts[2]: {parts[3]: parts[4]}})
    others = st.sampled_from(
        (
            {"Null": {"s3:prefix": "true"}},
            {"Null": {"aws:username": "false"}},
            {"Bool": {"aws:SecureTransport": "true"}},
            {"NumericLessThan": {"s3:max-keys": "10"}},
            {"NumericLessThanIfExists": {"s3:max-keys": ["3", "5"]}},
            {"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "192.168.0.0/16"]}},
            {"NotIpAddress": {"aws:SourceIp": "10.1.0.0/16"}},
        )
    )
    return st.lists(st.one_of(texts, others), max_size=2).map(
        lambda found: {name: keys for one in found for name, keys in one.items()}
    )


def statements(*, principals: bool) -> st.SearchStrategy[dict[str, Any]]:
    who = st.sampled_from(("*", {"AWS": ANA}, {"AWS": [ANA, BOB]}))
    not_who = st.sampled_from(({"AWS": ANA}, {"AWS": [ANA, BOB]}))
    parts = [
        st.sampled_from((ALLOW, DENY)).map(lambda effect: {"Effect": effect}),
        st.tuples(
            st.sampled_from(("Action", "NotAction")), some(("s3:*", "s3:Get*", "*", "S3:putobject", "s3:?etObject"))
        ).map(lambda pair: dict([pair])),
        st.tuples(st.sampled_from(("Resource", "NotResource")), some(PATTERNS)).map(lambda pair: dict([pair])),
        conditions().map(lambda found: {"Condition": found} if found else {}),
    ]
    if principals:
        parts.append(
            st.one_of(who.map(lambda value: {"Principal": value}), not_who.map(lambda value: {"NotPrincipal": value}))
        )
    return st.tuples(*parts).map(lambda found: {name: value for part in found for name, value in part.items()})


def documents(*, principals: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    return st.lists(statements(principals=principals), min_size=1, max_size=4).map(
        lambda found: {"Version": "2012-10-17", "Statement": found}
    )


CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "aws:username": st.sampled_from(("ana", "bob")).map(lambda text: [text]),
        "s3:prefix": st.sampled_from(("ana", "a*")).map(lambda text: [text]),
        "aws:tagkeys": st.lists(st.sampled_from(("ana", "bob", "cy")), min_size=1, max_size=3),
        "aws:securetransport": st.just(["true"]),
        "s3:max-keys": st.sampled_from(("2", "4", "30")).map(lambda text: [text]),
        "aws:sourceip": st.sampled_from(("10.1.2.3", "10.2.0.1", "8.8.8.8")).map(lambda text: [text]),
    },
)
ASKS = st.tuples(st.sampled_from((None, ANA, BOB)), st.sampled_from(ACTIONS), st.sampled_from(RESOURCES), CONTEXTS)


def asked(who: str | None, action: str, resource: str, context: dict[str, list[str]]) -> Ask:
    return Ask(
        Asker((who,) if who else ()), action, resource, {name: tuple(values) for name, values in context.items()}
    )


@given(documents(principals=True), ASKS)
def test_a_bucket_policy_decides_as_the_model(document: dict[str, Any], ask: tuple[Any, ...]) -> None:
    assert parse(json.dumps(document), principals=True).decide(asked(*ask)) == naive.decide(document, *ask)


@given(documents(), ASKS)
def test_a_users_policy_decides_as_the_model(document: dict[str, Any], ask: tuple[Any, ...]) -> None:
    assert parse(json.dumps(document)).decide(asked(*ask)) == naive.decide(document, *ask)


@given(
    st.lists(documents(), max_size=3),
    st.lists(st.lists(documents(), min_size=1, max_size=2), max_size=2),
    documents(principals=True),
    ASKS,
    st.booleans(),
)
def test_deny_wins_and_no_limit_is_passed(
    own: list[Any], limits: list[Any], of_bucket: dict[str, Any], ask: tuple[Any, ...], granted: bool
) -> None:
    """What a requester may do is what its own policies or the bucket's allow, and every limit too, and nothing
    denies."""
    who = requester(
        "User",
        "ana",
        [ask[0] or ANA],
        [read(json.dumps(one)) for one in own],
        [[read(json.dumps(one)) for one in limit] for limit in limits],
    )
    question = (ask[0] or ANA, *ask[1:])
    said = [naive.decide(one, *question) for one in own]
    bounds = [[naive.decide(one, *question) for one in limit] for limit in limits]
    bucket = naive.decide(of_bucket, *question)
    allowed = who.allowed(asked(*question), parse(json.dumps(of_bucket), principals=True), granted=granted)
    if "Deny" in (*said, bucket, *(one for bound in bounds for one in bound)):
        assert not allowed
    else:
        assert allowed == ((granted or "Allow" in (*said, bucket)) and all("Allow" in bound for bound in bounds))


@given(documents(), documents(), ASKS)
def test_a_child_never_has_more_than_its_parent(
    parents: dict[str, Any], childs: dict[str, Any], ask: tuple[Any, ...]
) -> None:
    parent = requester("User", "ana", [ANA], [read(json.dumps(parents))])
    child = requester("AssumedRole", "ana", [ANA], [read(json.dumps(parents))], [[read(json.dumps(childs))]])
    if child.allowed(asked(*ask)):
        assert parent.allowed(asked(*ask))


@given(ASKS, st.text(max_size=20))
def test_what_cannot_be_read_denies(ask: tuple[Any, ...], text: str) -> None:
    who = requester("User", "ana", [ANA], [policy_of(parse_grant("SuperUser")), read("{" + text)])
    assert read("{" + text) is UNREADABLE
    assert not who.allowed(asked(*ask))
    assert not requester("User", "ana", [ANA], [policy_of(parse_grant("SuperUser"))]).allowed(asked(*ask), UNREADABLE)


GOOD = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"Effect": "Maybe"}, "Allow or Deny"),
        ({"Action": []}, "list of texts"),
        ({"Action": "getobject"}, "invalid action"),
        ({"Resource": "b"}, "invalid resource"),
        ({"Principal": {"AWS": "ana"}}, "Invalid principal"),
        ({"Principal": {"AWS": "arn:aws:iam::000000000000:user/*"}}, "Invalid principal"),
        ({"Principal": {"Someone": "*"}}, "Invalid principal"),
        ({"NotPrincipal": {"AWS": ANA}}, "both Principal and NotPrincipal"),
        ({"NotAction": "s3:*"}, "both Action and NotAction"),
        ({"Condition": {"NumericEquals": {"s3:max-keys": "ten"}}}, "cannot have the value"),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/40"}}}, "cannot have the value"),
        ({"Condition": {"DateLessThan": {"aws:CurrentTime": "soon"}}}, "cannot have"),
        ({"Condition": {"StringEquals": {"a": []}}}, "no value"),
        ({"Condition": {"StringEquals": {"a": {}}}}, "must be a text"),
        ({"Sid": 3}, "Sid"),
        ({"Extra": 1}, "no element Extra"),
    ],
)
def test_what_is_no_policy_is_refused_with_the_reason(change: dict[str, Any], why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        parse(json.dumps({"Version": "2012-10-17", "Statement": [{**GOOD, **change}]}), principals=True)


ROOT = "arn:aws:iam::000000000000:root"


@pytest.mark.parametrize("account", [ROOT, "000000000000"])
def test_a_deny_of_all_but_some_denies_others_of_the_account(account: str) -> None:
    """AWS has the account named beside who is spared; by that nobody else is. A Deny of an account is of all in it."""
    for element, spared in (("NotPrincipal", (ANA, ROOT)), ("Principal", ())):
        named = [ANA, account] if element == "NotPrincipal" else account
        statement = {**GOOD, "Effect": DENY, element: {"AWS": named}}
        if element == "NotPrincipal":
            del statement["Principal"]
        policy = parse(json.dumps({"Statement": [statement]}), principals=True)
        for who in (ANA, BOB, ROOT):
            ask = Ask(Asker((who,)), "s3:GetObject", "arn:aws:s3:::b/x")
            assert policy.decide(ask) == ("" if who in spared else DENY), (element, who)


@pytest.mark.parametrize("account", [ROOT, "000000000000"])
def test_an_allow_never_lets_an_account_in_by_its_name(account: str) -> None:
    for named in ({"Principal": {"AWS": account}}, {"NotPrincipal": {"AWS": account}}):
        statement = {name: value for name, value in GOOD.items() if name != "Principal"}
        policy = parse(json.dumps({"Statement": [{**statement, **named}]}), principals=True)
        assert policy.decide(Ask(Asker((BOB,)), "s3:GetObject", "arn:aws:s3:::b/x")) == ""


def test_a_name_that_is_given_twice_is_refused() -> None:
    with pytest.raises(PolicyError, match="twice"):
        parse('{"Statement": [], "Statement": []}')


@pytest.mark.parametrize(
    ("condition", "key", "holds"),
    [
        ({"DateGreaterThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}, {"aws:currenttime": "1767225601"}, True),
        ({"DateLessThanEquals": {"aws:CurrentTime": "1767225600"}}, {"aws:currenttime": "2026-01-01T00:00:00Z"}, True),
        ({"DateNotEquals": {"aws:CurrentTime": "1767225600"}}, {"aws:currenttime": "2026-01-01T00:00:00Z"}, False),
        ({"NumericGreaterThanEquals": {"s3:max-keys": 10}}, {"s3:max-keys": "10"}, True),
        ({"NumericEquals": {"s3:max-keys": "10"}}, {"s3:max-keys": "10.0"}, True),
        ({"NumericNotEquals": {"s3:max-keys": "10"}}, {"s3:max-keys": "ten"}, True),
        ({"StringEqualsIgnoreCase": {"s3:prefix": "ANA"}}, {"s3:prefix": "ana"}, True),
        ({"StringNotEqualsIgnoreCase": {"s3:prefix": "ANA"}}, {"s3:prefix": "ana"}, False),
        ({"BinaryEquals": {"s3:prefix": "QmFzZQ=="}}, {"s3:prefix": "QmFzZQ=="}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/a*"}}, {"aws:principalarn": ANA}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:*::000000000001:user/a*"}}, {"aws:principalarn": ANA}, False),
        ({"ArnNotEquals": {"aws:PrincipalArn": ANA}}, {"aws:principalarn": ANA}, False),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:sourceip": "::ffff:10.0.0.1"}, True),
        ({"IpAddress": {"aws:SourceIp": "2001:db8::/32"}}, {"aws:sourceip": "2001:db8::1"}, True),
        ({"Bool": {"aws:SecureTransport": False}}, {"aws:securetransport": "false"}, True),
        ({"StringEquals": {"s3:prefix": "${*}"}}, {"s3:prefix": "*"}, True),
        ({"StringLike": {"s3:prefix": "x${*}"}}, {"s3:prefix": "xy"}, False),
        ({"StringEquals": {"s3:prefix": "${aws:username, 'c'}"}}, {"s3:prefix": "c"}, True),
    ],
)
def test_operators(condition: dict[str, Any], key: dict[str, str], holds: bool) -> None:
    policy = parse(json.dumps({"Statement": [{**GOOD, "Condition": condition}]}), principals=True)
    ask = Ask(Asker(), "s3:GetObject", "arn:aws:s3:::b/x", {name: (value,) for name, value in key.items()})
    assert (policy.decide(ask) == ALLOW) is holds


@pytest.mark.parametrize(
    ("change", "public"),
    [
        ({}, True),
        ({"Principal": {"AWS": ANA}}, False),
        ({"Effect": "Deny"}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/1"}}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "2000::/3"}}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": ["2001:db8::/32", "2001::/31"]}}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": ["2001:db8::/32", "10.0.0.0/8"]}}}, False),
        ({"Condition": {"StringEquals": {"aws:Referer": "x"}}}, True),
        ({"Condition": {"StringLike": {"aws:userid": "?????????"}}}, True),
        ({"Condition": {"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::000000000000:user/??"}}}, True),
        ({"Condition": {"StringEquals": {"aws:PrincipalArn": ANA + "?"}}}, False),
        ({"Condition": {"StringEquals": {"aws:userid": "anonymous"}}}, True),
        ({"Condition": {"StringEqualsIgnoreCase": {"aws:userid": ["AIDA1", "Anonymous"]}}}, True),
        ({"Condition": {"StringEquals": {"aws:userid": "AIDA1"}}}, False),
        ({"Condition": {"StringLike": {"aws:PrincipalArn": "*"}}}, True),
        ({"Condition": {"ArnEquals": {"aws:PrincipalArn": ANA}}}, False),
        ({"Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, True),
        ({"Condition": {"IpAddressIfExists": {"aws:SourceIp": "10.0.0.0/8"}}}, True),
    ],
)
def test_what_is_public(change: dict[str, Any], public: bool) -> None:
    assert parse(json.dumps({"Statement": [{**GOOD, **change}]}), principals=True).public is public


def test_wildcards_take_bounded_time() -> None:
    policy = parse(
        json.dumps({"Statement": [{**GOOD, "Resource": "arn:aws:s3:::b/" + "*a" * 200 + "b"}]}), principals=True
    )
    started = time.process_time()
    assert policy.decide(Ask(Asker(), "s3:GetObject", "arn:aws:s3:::b/" + "a" * 1024)) == ""
    assert time.process_time() - started < 5
