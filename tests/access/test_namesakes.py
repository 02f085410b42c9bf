"""A user or role made again has nothing of its namesake: documents and lists keep who is meant by id, as AWS does."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from access import accounts, where
from access.accounts import ACCOUNT, TRUST_ALL, allow, client, code, trust
from process import ServerProcess, make_client
from s4.access import principals
from s4.access.policy import ALLOW, Ask, Asker, parse
from s4.access.requester import requester
from s4.metadata.rows import User, decode, encode
from server.test_admin import admin

s3, bucket, iam = where.s3, where.bucket, accounts.iam
_numbers = itertools.count(1)
READS = "s3:GetObject"


@pytest.fixture(scope="module")
def server(open_server: Any) -> Any:
    return open_server


@pytest.fixture
def user(server: ServerProcess, iam: Any) -> Callable[[], tuple[str, Any, dict[str, Any]]]:
    """Makes the user (again): its name, S3 with a key of its own, and what IAM says of it."""
    name = f"again-{next(_numbers)}"

    def make() -> tuple[str, Any, dict[str, Any]]:
        for one in (
            iam.list_access_keys(UserName=name)["AccessKeyMetadata"] if not code(iam.get_user, UserName=name) else ()
        ):
            iam.delete_access_key(UserName=name, AccessKeyId=one["AccessKeyId"])
        code(iam.delete_user, UserName=name)
        made = iam.create_user(UserName=name)["User"]
        return name, client(server, "s3", iam.create_access_key(UserName=name)["AccessKey"]), made

    return make


def put(s3: Any, bucket: str, *who: str, effect: str = "Allow", element: str = "Principal") -> str:
    statement = {"Effect": effect, element: {"AWS": list(who)}, "Action": READS, "Resource": f"arn:aws:s3:::{bucket}/*"}
    return code(
        s3.put_bucket_policy, Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )


def shown(s3: Any, bucket: str) -> list[str]:
    listed = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"][0]["Principal"]["AWS"]
    return listed if isinstance(listed, list) else [listed]


def test_a_buckets_policy_names_who_was_there(s3: Any, iam: Any, bucket: str, user: Any) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    name, own, made = user()
    assert not put(s3, bucket, made["Arn"])
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert shown(s3, bucket) == [made["Arn"]]
    iam.update_user(UserName=name, NewPath="/moved/")
    assert shown(s3, bucket) == [f"arn:aws:iam::{ACCOUNT}:user/moved/{name}"], "it is shown as it is called now"
    assert not code(own.get_object, Bucket=bucket, Key="k")

    _, other, again = user()
    assert again["Arn"] == made["Arn"] and again["UserId"] != made["UserId"]
    assert code(other.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert shown(s3, bucket) == [made["UserId"]], "who is gone is shown by its id"
    assert put(s3, bucket, made["UserId"]) == "MalformedPolicy", "and is not named anew"


def test_roles_and_their_sessions_too(server: ServerProcess, s3: Any, iam: Any, bucket: str, user: Any) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.put_object(Bucket=bucket, Key="for-night", Body=b"x")
    name, _, _ = user()
    iam.put_user_policy(UserName=name, PolicyName="assume", PolicyDocument=json.dumps(allow("sts:AssumeRole")))
    key = iam.create_access_key(UserName=name)["AccessKey"]

    def role() -> tuple[dict[str, Any], Any]:
        code(iam.delete_role, RoleName=f"role-{name}")
        made = iam.create_role(RoleName=f"role-{name}", AssumeRolePolicyDocument=json.dumps(TRUST_ALL))["Role"]
        assumed = client(server, "sts", key).assume_role(RoleArn=made["Arn"], RoleSessionName="night")
        return made, client(server, "s3", assumed["Credentials"])

    made, session = role()
    night = f"arn:aws:sts::{ACCOUNT}:assumed-role/role-{name}/night"
    for who in (made["Arn"], night):
        assert not put(s3, bucket, who)
        assert shown(s3, bucket) == [who]
        assert not code(session.get_object, Bucket=bucket, Key="k")
    assert not put(s3, bucket, night.replace("/night", "/day"))
    assert code(session.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    for who in (made["Arn"], night):
        assert not put(s3, bucket, who)
        made, session = role()
        assert code(session.get_object, Bucket=bucket, Key="k") == "AccessDenied", who
    iam.delete_user_policy(UserName=name, PolicyName="assume")


def test_a_roles_trust_is_of_who_was_there(server: ServerProcess, iam: Any, user: Any) -> None:
    name, _, made = user()
    trusted = trust(made["Arn"])
    role = iam.create_role(RoleName=f"trusting-{name}", AssumeRolePolicyDocument=json.dumps(trusted))["Role"]
    assert role["AssumeRolePolicyDocument"] == trusted

    def assume() -> str:
        sts = client(server, "sts", iam.create_access_key(UserName=name)["AccessKey"])
        return code(sts.assume_role, RoleArn=role["Arn"], RoleSessionName="night")

    assert assume() == ""
    _, _, again = user()
    assert assume() == "AccessDenied"
    held = iam.get_role(RoleName=role["RoleName"])["Role"]["AssumeRolePolicyDocument"]
    assert held["Statement"][0]["Principal"]["AWS"] == made["UserId"]
    assert (
        code(iam.update_assume_role_policy, RoleName=role["RoleName"], PolicyDocument=json.dumps(held))
        == "MalformedPolicyDocument"
    )
    assert not code(iam.update_assume_role_policy, RoleName=role["RoleName"], PolicyDocument=json.dumps(trusted))
    assert assume() == "" and again["Arn"] == made["Arn"]


def test_a_list_of_grants_names_who_was_there(server: ServerProcess, s3: Any, bucket: str, user: Any) -> None:
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]})
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.put_object(Bucket=bucket, Key="listed", Body=b"x")
    name, own, _ = user()
    admin(server, "user", "set", name, "--grant", f"Reader:{bucket}")
    mine = own.list_buckets()["Owner"]["ID"]
    admin(server, "user", "set", name, "--grant", "Reader:no-such-bucket-at-all")
    for _ in range(2):
        s3.put_object_acl(Bucket=bucket, Key="k", GrantRead=f'id="{mine}"')
        s3.put_bucket_acl(Bucket=bucket, GrantRead=f'id="{mine}"')
        assert not code(own.get_object, Bucket=bucket, Key="k")
        assert not code(own.list_objects_v2, Bucket=bucket)
        _, own, _ = user()
        assert code(own.get_object, Bucket=bucket, Key="k") == "AccessDenied"
        assert code(own.list_objects_v2, Bucket=bucket) == "AccessDenied"
        # The same of one that `s4 admin` makes.
        admin(server, "user", "remove", name)
        keys = admin(server, "user", "add", name, "--grant", f"Reader:{bucket}")
        own = make_client(server.endpoint, keys["access_key"], keys["secret_key"])
        before, mine = mine, own.list_buckets()["Owner"]["ID"]
        assert mine != before
        admin(server, "user", "set", name, "--grant", "Reader:no-such-bucket-at-all")


def test_an_owner_is_shown_by_its_own_id_everywhere(server: ServerProcess, s3: Any, iam: Any, user: Any) -> None:
    name, own, _ = user()
    bucket = f"owned-by-{name}"
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(allow("s3:*")))
    own.create_bucket(Bucket=bucket)
    own.put_object(Bucket=bucket, Key="k", Body=b"x")
    upload = own.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    found = {
        own.list_buckets()["Owner"]["ID"],
        own.get_bucket_acl(Bucket=bucket)["Owner"]["ID"],
        own.get_object_acl(Bucket=bucket, Key="k")["Owner"]["ID"],
        own.list_objects(Bucket=bucket)["Contents"][0]["Owner"]["ID"],
        own.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"]["ID"],
        own.list_object_versions(Bucket=bucket)["Versions"][0]["Owner"]["ID"],
        own.list_multipart_uploads(Bucket=bucket)["Uploads"][0]["Owner"]["ID"],
        own.list_parts(Bucket=bucket, Key="k", UploadId=upload)["Owner"]["ID"],
        s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"],
    }
    assert len(found) == 1
    # Who is made again under the name owns by name, which gives nothing.
    iam.delete_user_policy(UserName=name, PolicyName="all")
    _, again, _ = user()
    for method, options in (
        (again.get_object, {"Key": "k"}),
        (again.get_bucket_acl, {}),
        (again.delete_bucket, {}),
        (again.list_objects_v2, {}),
    ):
        assert code(method, Bucket=bucket, **options) == "AccessDenied"
    assert s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"] not in found


def test_users_of_before_have_the_id_of_their_name() -> None:
    old = decode(User, encode(User("ana", 1))[:1] + msgspec.msgpack.encode(["ana", 1, True, "AIDA0000000000000000A"]))
    assert old.canonical == ""
    assert (
        requester("User", "ana", ["arn"], [], canonical=old.canonical).asker.canonical
        == hashlib.sha256(b"ana").hexdigest()
    )


def test_names_that_differ_in_case_are_one(server: ServerProcess, iam: Any, user: Any) -> None:
    name, _, made = user()
    other = name.upper()
    iam.create_group(GroupName=name)
    iam.create_group(GroupName=f"other-{name}")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST_ALL))
    policy = iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(allow(READS)))["Policy"]["Arn"]
    for method, options in (
        (iam.create_user, {"UserName": other}),
        (iam.create_group, {"GroupName": other}),
        (iam.update_group, {"GroupName": f"other-{name}", "NewGroupName": other}),
        (iam.create_role, {"RoleName": other, "AssumeRolePolicyDocument": json.dumps(TRUST_ALL)}),
        (iam.create_policy, {"PolicyName": other, "PolicyDocument": json.dumps(allow(READS))}),
    ):
        assert code(method, **options) == "EntityAlreadyExists", options
    assert code(iam.create_user, UserName="Root") == "EntityAlreadyExists"
    assert server.admin_cli("user", "add", other, "--grant", "Reader", check=False).returncode != 0
    assert not code(iam.update_group, GroupName=name, NewGroupName=other), "another case of its own name"
    assert iam.get_user(UserName=name)["User"]["UserId"] == made["UserId"]
    for group in (other, f"other-{name}"):
        iam.delete_group(GroupName=group)
    iam.delete_role(RoleName=name)
    iam.delete_policy(PolicyArn=policy)


@pytest.mark.parametrize(
    "who",
    [
        f"arn:aws:iam::{ACCOUNT}:user/nobody-at-all",
        f"arn:aws:iam::{ACCOUNT}:role/nobody-at-all",
        "arn:aws:iam::111122223333:user/{}",
        f"arn:aws:sts::{ACCOUNT}:assumed-role/nobody-at-all/x",
        f"arn:aws:sts::{ACCOUNT}:federated-user/x",
        f"arn:aws:iam::{ACCOUNT}:user/path/{{}}",
        "AIDA00000000000000000:user/{}",
    ],
)
def test_who_is_not_there_is_no_principal(s3: Any, bucket: str, user: Any, who: str) -> None:
    name, _, _ = user()
    for effect, element in (("Allow", "Principal"), ("Deny", "NotPrincipal")):
        assert put(s3, bucket, who.format(name), effect=effect, element=element) == "MalformedPolicy"


@pytest.mark.parametrize(
    ("kind", "who"),
    [
        ("AWS", "111122223333"),
        ("AWS", "arn:aws:iam::111122223333:root"),
        ("CanonicalUser", "0" * 64),
        ("Federated", f"arn:aws:iam::{ACCOUNT}:oidc-provider/nowhere.example"),
        ("Federated", "cognito-identity.amazonaws.com"),
        ("Service", "ec2.amazonaws.com"),
        ("Nobody", "x"),
    ],
)
def test_no_other_kind_of_principal_is_made_up_either(s3: Any, iam: Any, bucket: str, kind: str, who: str) -> None:
    """In a bucket's policy and in a role's trust; the answer says which."""
    statement = {
        "Effect": "Deny",
        "Principal": {kind: who},
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    with pytest.raises(ClientError, match=f"MalformedPolicy.*Invalid principal in policy: ({re.escape(who)}|Nobody)"):
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    trust = {"Effect": "Allow", "Principal": {kind: who}, "Action": "sts:AssumeRole"}
    with pytest.raises(
        ClientError, match=f"MalformedPolicyDocument.*Invalid principal in policy: ({re.escape(who)}|Nobody)"
    ):
        iam.create_role(
            RoleName=where.new_name(),
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
        )


def test_a_canonical_id_that_somebody_has_is_a_principal(s3: Any, bucket: str) -> None:
    owner = s3.list_buckets()["Owner"]["ID"]
    statement = {
        "Effect": "Deny",
        "Principal": {"CanonicalUser": owner},
        "Action": "s3:GetObjectTorrent",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def test_documents_of_before_go_by_name() -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:user/ana"
    document = {
        "Statement": {"Effect": "Allow", "Principal": {"AWS": arn}, "Action": READS, "Resource": "arn:aws:s3:::b/*"}
    }
    old = json.dumps(document)
    new = principals.replaced(
        old, {arn: principals.keep(principals.Named(ACCOUNT, "user", "ana"), "AIDA0000000000000000A")}
    )
    for text, ids, allowed in (
        (old, ("AIDA0000000000000000B",), True),
        (new, ("AIDA0000000000000000A",), True),
        (new, ("AIDA0000000000000000B",), False),
    ):
        asked = Ask(Asker((arn,), "", ids), READS, "arn:aws:s3:::b/x")
        assert (parse(text, principals=True).decide(asked) == ALLOW) is allowed


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"Statement": 1}', '{"Statement": [{"Principal": {"AWS": 1}}]}', "[" * 100_000]
)
def test_what_cannot_be_read_names_nobody(text: str) -> None:
    assert principals.of(text) == set()
