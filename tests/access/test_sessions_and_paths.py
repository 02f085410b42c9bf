"""A session makes nothing that outlives it, and nothing is moved to where its mover may not be."""

from __future__ import annotations

import itertools
import json
from typing import Any

from access.accounts import ACCOUNT, TRUST_ALL, allow, client, code
from access.test_admin_rights import said
from process import ServerProcess
from server.test_admin import admin
from server.test_admin_port import called

_numbers = itertools.count(1)


def user(server: ServerProcess, *documents: dict[str, Any], path: str = "/") -> tuple[str, dict[str, str]]:
    iam, name = client(server, "iam"), f"mover-{next(_numbers)}"
    iam.create_user(UserName=name, Path=path)
    for number, document in enumerate(documents):
        iam.put_user_policy(UserName=name, PolicyName=f"p{number}", PolicyDocument=json.dumps(document))
    return name, iam.create_access_key(UserName=name)["AccessKey"]


def test_a_users_session_makes_no_key(open_server: ServerProcess) -> None:
    name, keys = user(open_server, allow("*"))
    session = client(open_server, "sts", keys).get_session_token()["Credentials"]
    own = client(open_server, "iam", session)
    for call, options in (
        (own.create_access_key, {"UserName": name}),
        (own.create_access_key, {}),
        (own.create_user, {"UserName": "later"}),
        (own.list_users, {}),
    ):
        assert code(call, **options) == "InvalidClientTokenId"
    assert client(open_server, "s3", session).list_buckets() is not None
    answer = called(
        open_server,
        "POST",
        f"/admin/v1/users/{name}/keys",
        access=session["AccessKeyId"],
        secret=session["SecretAccessKey"],
        **{"x-amz-security-token": session["SessionToken"]},
    )
    assert (answer.status, b"session cannot call IAM" in answer.body) == (403, True)
    answer = called(
        open_server,
        "GET",
        "/admin/v1/status",
        access=session["AccessKeyId"],
        secret=session["SecretAccessKey"],
        **{"x-amz-security-token": session["SessionToken"]},
    )
    assert answer.status == 200
    assert len(client(open_server, "iam").list_access_keys(UserName=name)["AccessKeyMetadata"]) == 1
    assert said(open_server, keys) == ""
    admin(open_server, "user", "remove", name)


def test_a_roles_session_names_whose_key_it_makes(open_server: ServerProcess) -> None:
    iam, role = client(open_server, "iam"), f"maker-{next(_numbers)}"
    name, keys = user(open_server, allow("sts:AssumeRole"))
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(TRUST_ALL))
    iam.put_role_policy(
        RoleName=role,
        PolicyName="p",
        PolicyDocument=json.dumps(allow("iam:CreateAccessKey", resource=f"arn:aws:iam::{ACCOUNT}:user/{name}")),
    )
    assumed = client(open_server, "sts", keys).assume_role(
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}", RoleSessionName="one"
    )["Credentials"]
    own = client(open_server, "iam", assumed)
    assert code(own.create_access_key, UserName=name) == ""
    assert code(own.create_access_key) in ("ValidationError", "AccessDenied")
    admin(open_server, "user", "remove", name)
    iam.delete_role_policy(RoleName=role, PolicyName="p")
    iam.delete_role(RoleName=role)


def test_who_moves_a_user_or_group_may_touch_both_places(open_server: ServerProcess) -> None:
    iam = client(open_server, "iam")
    mine = f"arn:aws:iam::{ACCOUNT}:user/mine/*"
    mover, keys = user(
        open_server,
        allow("iam:UpdateUser", resource=mine),
        allow("iam:UpdateGroup", resource=f"arn:aws:iam::{ACCOUNT}:group/mine/*"),
    )
    own = client(open_server, "iam", keys)
    moved, _ = user(open_server, path="/mine/")
    group = f"movers-{next(_numbers)}"
    iam.create_group(GroupName=group, Path="/mine/")
    for call, named in ((own.update_user, {"UserName": moved}), (own.update_group, {"GroupName": group})):
        for path in ("/", "/admins/", "/mine2/"):
            assert code(call, **named, NewPath=path) == "AccessDenied"
        assert code(call, **named, NewPath="/mine/deeper/") == ""
        assert code(call, **named) == ""
    iam.create_group(GroupName=f"{group}-b", Path="/")
    iam.put_user_policy(
        UserName=mover,
        PolicyName="p1",
        PolicyDocument=json.dumps(allow("iam:UpdateGroup", resource=f"arn:aws:iam::{ACCOUNT}:group/mine/*{group}")),
    )
    assert code(own.update_group, GroupName=group, NewGroupName="admins") == "AccessDenied"
    for name in (group, f"{group}-b"):
        iam.delete_group(GroupName=name)
    for name in (mover, moved):
        admin(open_server, "user", "remove", name)
