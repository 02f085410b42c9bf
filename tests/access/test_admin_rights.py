"""Who may use the admin port, judged as every other request is: by policies that name it, with the whole request's
context."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from access.accounts import allow, client
from process import REGION, ServerProcess, make_client
from raw import call
from s4.cli.admin_client import AdminClient, AdminError
from server.test_admin import admin

_numbers = itertools.count(1)
Keys = dict[str, str]


@pytest.fixture
def made(open_server: ServerProcess) -> Iterator[Callable[..., tuple[str, Keys]]]:
    """Makes a user with one policy: (name, keys)."""
    iam, names = client(open_server, "iam"), []

    def make(document: dict[str, Any]) -> tuple[str, Keys]:
        name = f"helper-{next(_numbers)}"
        iam.create_user(UserName=name)
        names.append(name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(document))
        return name, iam.create_access_key(UserName=name)["AccessKey"]

    yield make
    for name in names:
        admin(open_server, "user", "remove", name)


def said(server: ServerProcess, keys: Keys, method: str = "GET", path: str = "/status", body: Any = None) -> str:
    """What went wrong; empty where nothing did."""
    try:
        list(AdminClient(server.admin, keys["AccessKeyId"], keys["SecretAccessKey"], REGION).call(method, path, body))
    except AdminError as error:
        return str(error)
    return ""


def test_administration_is_allowed_by_name_or_by_everything(open_server: ServerProcess, made: Any) -> None:
    power = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "NotAction": ["iam:*", "sts:*"], "Resource": "*"}],
    }
    for document, allowed in (
        (power, False),
        (allow("s3:*"), False),
        (allow("s4:Admin"), True),
        (allow("s4:*"), True),
        (allow("*"), True),
    ):
        _, keys = made(document)
        assert (said(open_server, keys) == "") == allowed, document


def test_a_condition_on_the_request_bites_there_too(open_server: ServerProcess, made: Any) -> None:
    elsewhere, here = (
        {"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}},
        {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}},
    )

    def both(condition: Any) -> dict[str, Any]:
        denied = allow("*", effect="Deny", Condition=condition)["Statement"]
        return {"Version": "2012-10-17", "Statement": [*allow("*")["Statement"], *denied]}

    for condition in (
        elsewhere,
        here,
        {"Bool": {"aws:SecureTransport": "false"}},
        {"StringNotLike": {"aws:UserAgent": "curl*"}},
    ):
        _, keys = made(both(condition))
        assert "AccessDenied" in said(open_server, keys), condition
    _, keys = made(allow("s4:Admin", Condition=here))
    assert said(open_server, keys) == ""


def test_accounts_are_changed_by_who_may_do_so_in_iam(open_server: ServerProcess, made: Any) -> None:
    """`s4:Admin` alone makes nobody a SuperUser."""
    name, keys = made(allow("s4:Admin"))
    target, _ = made(allow("s3:*"))
    own = client(open_server, "iam").create_access_key(UserName=target)["AccessKey"]["AccessKeyId"]
    calls: tuple[tuple[str, str, Any, str], ...] = (
        ("GET", "/users", None, "iam:ListUsers"),
        ("PUT", f"/users/{name}", {"grants": ["SuperUser"]}, "iam:PutUserPolicy"),
        ("PUT", "/users/somebody", {"grants": ["SuperUser"], "create": True}, "iam:PutUserPolicy"),
        ("POST", f"/users/{target}/keys", None, "iam:CreateAccessKey"),
        ("POST", "/users/root/keys", None, "iam:CreateAccessKey"),
        ("DELETE", f"/users/{target}/keys/{own}", None, "iam:DeleteAccessKey"),
        ("DELETE", f"/users/{target}", None, "iam:DeleteUser"),
    )
    for method, path, body, action in calls:
        assert action in said(open_server, keys, method, path, body), path
    client(open_server, "iam").put_user_policy(
        UserName=name,
        PolicyName="q",
        PolicyDocument=json.dumps(allow("iam:CreateAccessKey", resource=f"arn:aws:iam::000000000000:user/{target}")),
    )
    assert said(open_server, keys, "POST", f"/users/{target}/keys") == ""
    assert "iam:CreateAccessKey" in said(open_server, keys, "POST", f"/users/{name}/keys")


def test_a_user_is_removed_by_who_may_take_away_what_it_has(open_server: ServerProcess, made: Any) -> None:
    """IAM wants each of it taken away first."""
    steps = [
        "iam:DeleteUser",
        "iam:DetachUserPolicy",
        "iam:RemoveUserFromGroup",
        "iam:DeleteUserPolicy",
        "iam:DeleteAccessKey",
    ]
    iam, group = client(open_server, "iam"), f"removed-{next(_numbers)}"
    iam.create_group(GroupName=group)
    target, _ = made(allow("s3:*"))
    iam.attach_user_policy(UserName=target, PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    iam.add_user_to_group(GroupName=group, UserName=target)
    name, keys = made(allow("s4:Admin"))
    for at, action in enumerate(steps):
        assert action in said(open_server, keys, "DELETE", f"/users/{target}")
        iam.put_user_policy(UserName=name, PolicyName="q", PolicyDocument=json.dumps(allow(*steps[: at + 1])))
    assert said(open_server, keys, "DELETE", f"/users/{target}") == ""
    assert iam.get_group(GroupName=group)["Users"] == []
    assert target not in [one["name"] for one in open_server.ask("GET", "/users")["users"]]
    iam.delete_group(GroupName=group)
    admin(open_server, "user", "add", target, "--grant", "Reader")  # for the fixture to remove


def test_what_the_whole_holds_is_for_administrators(open_server: ServerProcess, made: Any) -> None:
    for document, status in ((allow("s3:*"), 403), (allow("s4:Admin"), 200)):
        _, keys = made(document)
        assert (
            call(
                open_server.endpoint, "GET", "/api/stats", access=keys["AccessKeyId"], secret=keys["SecretAccessKey"]
            ).status
            == status
        )


def test_who_may_not_see_users_may_serve_one_again(open_server: ServerProcess, made: Any) -> None:
    """One call, by what its caller may: not a look at all users, then a write of what one had a moment before."""
    name, _ = made(allow("s3:ListAllMyBuckets"))
    _, keys = made(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": ["s4:Admin", "iam:UpdateAccessKey"], "Resource": "*"}],
        }
    )
    for enabled in (False, True):
        assert said(open_server, keys, "PUT", f"/users/{name}", {"enabled": enabled}) == ""
        assert [one["enabled"] for one in admin(open_server, "user", "list")["users"] if one["name"] == name] == [
            enabled
        ]
    assert "AccessDenied" in said(open_server, keys, "PUT", f"/users/{name}", {"grants": ["SuperUser"]})
    assert "say what is to change" in said(open_server, keys, "PUT", f"/users/{name}", {})


def test_a_prefix_is_renamed_by_who_may_move_each_of_its_objects(open_server: ServerProcess, made: Any) -> None:
    """Whoever administers the server moved anybody's objects to where it, or everybody, could read them."""
    bucket, s3 = f"moved-{next(_numbers)}", make_client(open_server.endpoint)
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="secret/k", Body=b"x")
    wanted = {"bucket": bucket, "source": "secret/", "destination": "open/"}

    def refusal(*statements: dict[str, Any]) -> str:
        _, keys = made({"Version": "2012-10-17", "Statement": [*allow("s4:Admin")["Statement"], *statements]})
        return said(open_server, keys, "POST", "/renames", wanted)

    everything: dict[str, Any] = {"Effect": "Allow", "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}/*"}
    denied = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/secret/k"}
    reads = {**everything, "Action": "s3:GetObject"}
    for statements in ((), (reads,), (everything, denied), ({**everything, "Resource": "arn:aws:s3:::another/*"},)):
        assert "is needed for this" in refusal(*statements), statements
    policy = {"Version": "2012-10-17", "Statement": [{**denied, "Principal": "*"}]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    assert "is needed for this" in refusal(everything)
    s3.delete_bucket_policy(Bucket=bucket)
    s3.head_object(Bucket=bucket, Key="secret/k")
    assert refusal(everything) == ""
