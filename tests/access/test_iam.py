"""IAM by boto3's own client, against the running server, and what follows for S3."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from access import accounts, where
from access.accounts import ACCOUNT, TRUST_ALL, allow, client, code
from process import REGION, ServerProcess
from s4.http.iam.endpoint import IAM, KINDS
from server.test_admin import admin

server, s3, bucket = where.server, where.s3, where.bucket
iam, name, keys = accounts.iam, accounts.name, accounts.keys


def test_users(iam: Any) -> None:
    made = iam.create_user(UserName="ana", Path="/team/", Tags=[{"Key": "a", "Value": "1"}])["User"]
    assert (made["Arn"], made["Path"], made["UserId"][:4]) == (
        f"arn:aws:iam::{ACCOUNT}:user/team/ana",
        "/team/",
        "AIDA",
    )
    assert code(iam.create_user, UserName="ana") == "EntityAlreadyExists"
    assert code(iam.create_user, UserName="root") == "EntityAlreadyExists"
    assert code(iam.create_user, UserName="a b") == "ValidationError"
    assert code(iam.create_user, UserName="b", Path="team") == "ValidationError"
    iam.update_user(UserName="ana", NewPath="/other/")
    assert iam.get_user(UserName="ana")["User"]["Path"] == "/other/"
    assert code(iam.update_user, UserName="ana", NewUserName="bea") == "NotImplemented"
    iam.tag_user(UserName="ana", Tags=[{"Key": "b", "Value": "2"}])
    iam.untag_user(UserName="ana", TagKeys=["a"])
    assert iam.list_user_tags(UserName="ana")["Tags"] == [{"Key": "b", "Value": "2"}]
    for number in range(3):
        iam.create_user(UserName=f"page-{number}", Path="/page/")
    pages = list(iam.get_paginator("list_users").paginate(PathPrefix="/page/", PaginationConfig={"PageSize": 2}))
    assert [[user["UserName"] for user in page["Users"]] for page in pages] == [["page-0", "page-1"], ["page-2"]]
    for user in ("ana", "page-0", "page-1", "page-2"):
        iam.delete_user(UserName=user)
    assert code(iam.get_user, UserName="ana") == code(iam.delete_user, UserName="ana") == "NoSuchEntity"
    assert iam.get_user()["User"]["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"


def test_access_keys(server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str) -> None:
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(allow("s3:*")))
    first = iam.create_access_key(UserName=name)["AccessKey"]
    assert (first["Status"], first["AccessKeyId"][:4]) == ("Active", "AKIA")
    own = client(server, "s3", first)
    assert not code(own.put_object, Bucket=bucket, Key="k", Body=b"x")
    iam.update_access_key(UserName=name, AccessKeyId=first["AccessKeyId"], Status="Inactive")
    assert code(own.get_object, Bucket=bucket, Key="k") == "InvalidAccessKeyId"
    iam.update_access_key(UserName=name, AccessKeyId=first["AccessKeyId"], Status="Active")
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert (
        code(iam.update_access_key, UserName=name, AccessKeyId=first["AccessKeyId"], Status="Off") == "ValidationError"
    )
    assert iam.get_access_key_last_used(AccessKeyId=first["AccessKeyId"])["UserName"] == name
    assert [one["AccessKeyId"] for one in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]] == [
        first["AccessKeyId"]
    ]
    assert code(iam.delete_user, UserName=name) == "DeleteConflict"
    iam.delete_access_key(UserName=name, AccessKeyId=first["AccessKeyId"])
    assert code(own.get_object, Bucket=bucket, Key="k") == "InvalidAccessKeyId"
    assert (
        code(iam.delete_access_key, UserName=name, AccessKeyId=first["AccessKeyId"])
        == code(iam.get_access_key_last_used, AccessKeyId=first["AccessKeyId"])
        == "NoSuchEntity"
    )


def test_inline_policies_and_groups(
    server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str, keys: dict[str, str]
) -> None:
    own = client(server, "s3", keys)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert code(own.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert code(own.list_buckets) == "AccessDenied"
    group = f"g-{name}"
    made = iam.create_group(GroupName=group)["Group"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:group/{group}"
    iam.put_group_policy(
        GroupName=group,
        PolicyName="read",
        PolicyDocument=json.dumps(allow("s3:GetObject", resource=f"arn:aws:s3:::{bucket}/*")),
    )
    iam.add_user_to_group(GroupName=group, UserName=name)
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert [user["UserName"] for user in iam.get_group(GroupName=group)["Users"]] == [name]
    iam.put_user_policy(
        UserName=name, PolicyName="never", PolicyDocument=json.dumps(allow("s3:GetObject", resource="*", effect="Deny"))
    )
    assert code(own.get_object, Bucket=bucket, Key="k") == "AccessDenied"  # deny wins over the group
    assert iam.get_user_policy(UserName=name, PolicyName="never")["PolicyDocument"]["Statement"][0]["Effect"] == "Deny"
    iam.delete_user_policy(UserName=name, PolicyName="never")
    assert not code(own.get_object, Bucket=bucket, Key="k")
    iam.update_group(GroupName=group, NewGroupName=group + "-2", NewPath="/p/")
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert [one["GroupName"] for one in iam.list_groups_for_user(UserName=name)["Groups"]] == [group + "-2"]
    assert code(iam.delete_group, GroupName=group + "-2") == "DeleteConflict"
    iam.remove_user_from_group(GroupName=group + "-2", UserName=name)
    assert code(own.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert code(iam.remove_user_from_group, GroupName=group + "-2", UserName=name) == "NoSuchEntity"
    iam.delete_group_policy(GroupName=group + "-2", PolicyName="read")
    iam.delete_group(GroupName=group + "-2")
    assert code(iam.get_group, GroupName=group) == "NoSuchEntity"
    assert code(iam.put_user_policy, UserName=name, PolicyName="p", PolicyDocument="{}") == "MalformedPolicyDocument"
    assert (
        code(
            iam.put_user_policy,
            UserName=name,
            PolicyName="p",
            PolicyDocument=json.dumps(allow("s3:*", Condition={"StringEquals": {"a": "x" * 2100}})),
        )
        == "LimitExceeded"
    )


def test_managed_policies(
    server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str, keys: dict[str, str]
) -> None:
    own = client(server, "s3", keys)
    made = iam.create_policy(
        PolicyName=f"p-{name}", PolicyDocument=json.dumps(allow("s3:PutObject")), Description="writes"
    )["Policy"]
    arn = made["Arn"]
    assert (made["DefaultVersionId"], made["AttachmentCount"]) == ("v1", 0)
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    assert not code(own.put_object, Bucket=bucket, Key="k", Body=b"x")
    assert code(own.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    second = iam.create_policy_version(
        PolicyArn=arn, PolicyDocument=json.dumps(allow("s3:GetObject")), SetAsDefault=True
    )["PolicyVersion"]
    assert (second["VersionId"], second["IsDefaultVersion"]) == ("v2", True)
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert code(own.put_object, Bucket=bucket, Key="k", Body=b"x") == "AccessDenied"
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    assert not code(own.put_object, Bucket=bucket, Key="k", Body=b"x")
    assert iam.get_policy_version(PolicyArn=arn, VersionId="v2")["PolicyVersion"]["Document"]["Statement"][0][
        "Action"
    ] == ["s3:GetObject"]
    assert {one["VersionId"] for one in iam.list_policy_versions(PolicyArn=arn)["Versions"]} == {"v1", "v2"}
    assert code(iam.delete_policy_version, PolicyArn=arn, VersionId="v1") == "DeleteConflict"
    assert code(iam.delete_policy, PolicyArn=arn) == "DeleteConflict"
    assert [user["UserName"] for user in iam.list_entities_for_policy(PolicyArn=arn)["PolicyUsers"]] == [name]
    for _ in range(3):
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(allow("s3:GetObject")))
    assert (
        code(iam.create_policy_version, PolicyArn=arn, PolicyDocument=json.dumps(allow("s3:GetObject")))
        == "LimitExceeded"
    )
    iam.detach_user_policy(UserName=name, PolicyArn=arn)
    assert code(iam.detach_user_policy, UserName=name, PolicyArn=arn) == "NoSuchEntity"
    for version in ("v2", "v3", "v4", "v5"):
        iam.delete_policy_version(PolicyArn=arn, VersionId=version)
    iam.delete_policy(PolicyArn=arn)
    assert (
        code(iam.get_policy, PolicyArn=arn)
        == code(iam.attach_user_policy, UserName=name, PolicyArn=arn)
        == "NoSuchEntity"
    )
    iam.attach_user_policy(UserName=name, PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert bucket in [one["Name"] for one in own.list_buckets()["Buckets"]]
    assert code(own.put_object, Bucket=bucket, Key="k", Body=b"x") == "AccessDenied"
    assert "AdministratorAccess" in [one["PolicyName"] for one in iam.list_policies(Scope="AWS")["Policies"]]


def test_a_boundary_bounds_whatever_is_given(
    server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str, keys: dict[str, str]
) -> None:
    own = client(server, "s3", keys)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    iam.attach_user_policy(UserName=name, PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    iam.put_user_permissions_boundary(
        UserName=name, PermissionsBoundary="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    )
    assert iam.get_user(UserName=name)["User"]["PermissionsBoundary"]["PermissionsBoundaryArn"].endswith(
        "AmazonS3ReadOnlyAccess"
    )
    lent = allow("s3:*", resource=f"arn:aws:s3:::{bucket}/*", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:user/{name}"})
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(lent))
    assert not code(own.get_object, Bucket=bucket, Key="k")
    assert code(own.put_object, Bucket=bucket, Key="k", Body=b"y") == "AccessDenied"
    assert code(client(server, "iam", keys).list_users) == "AccessDenied"
    iam.delete_user_permissions_boundary(UserName=name)
    assert not code(own.put_object, Bucket=bucket, Key="k", Body=b"y")
    assert not code(client(server, "iam", keys).list_users)


def test_who_may_manage(server: ServerProcess, iam: Any, name: str, keys: dict[str, str]) -> None:
    own = client(server, "iam", keys)
    assert code(own.get_user) == code(own.create_user, UserName="x") == code(own.list_users) == "AccessDenied"
    iam.put_user_policy(
        UserName=name,
        PolicyName="self",
        PolicyDocument=json.dumps(
            allow("iam:GetUser", "iam:*AccessKey*", resource=f"arn:aws:iam::{ACCOUNT}:user/${{aws:username}}")
        ),
    )
    assert own.get_user()["User"]["UserName"] == name
    assert [one["AccessKeyId"] for one in own.list_access_keys()["AccessKeyMetadata"]] == [keys["AccessKeyId"]]
    second = own.create_access_key()["AccessKey"]
    own.delete_access_key(AccessKeyId=second["AccessKeyId"])
    assert code(own.get_user, UserName="root") == code(own.create_access_key, UserName="nobody") == "AccessDenied"
    assert (
        code(client(server, "iam", {"AccessKeyId": keys["AccessKeyId"], "SecretAccessKey": "wrong"}).get_user)
        == "SignatureDoesNotMatch"
    )
    assert (
        code(client(server, "iam", {"AccessKeyId": "AKIANONE", "SecretAccessKey": "wrong"}).get_user)
        == "InvalidClientTokenId"
    )
    assert code(iam.create_saml_provider, Name="x", SAMLMetadataDocument="x" * 1000) == "InvalidAction"


def test_what_a_call_is_about_is_its_operations_to_say(
    server: ServerProcess, iam: Any, name: str, keys: dict[str, str]
) -> None:
    """A parameter that an operation does not read does not say on what it is allowed."""
    mine = [f"arn:aws:iam::{ACCOUNT}:user/{name}", f"arn:aws:iam::{ACCOUNT}:group/mine"]
    iam.put_user_policy(
        UserName=name,
        PolicyName="own",
        PolicyDocument=json.dumps(allow("iam:*", resource=mine[1])),
    )
    all_of_it = quote(json.dumps(allow("*")))
    for wanted in (
        f"Action=PutUserPolicy&UserName={name}&GroupName=mine&PolicyName=p&PolicyDocument={all_of_it}",
        f"Action=CreatePolicy&PolicyName=p&GroupName=mine&PolicyDocument={all_of_it}",
        "Action=CreateUser&UserName=other&GroupName=mine",
        f"Action=CreateRole&RoleName=r&GroupName=mine&AssumeRolePolicyDocument={quote(json.dumps(TRUST_ALL))}",
        f"Action=AttachUserPolicy&UserName={name}&GroupName=mine&PolicyArn=arn:aws:iam::aws:policy/AdministratorAccess",
        "Action=GetAccessKeyLastUsed&GroupName=mine&AccessKeyId=x",
    ):
        assert b"<Code>AccessDenied</Code>" in query(server, keys, wanted)
    listed = [action for action in IAM if action not in KINDS]
    assert all(action.startswith("List") or action == "GetAccessKeyLastUsed" for action in listed), listed


def test_a_boundary_that_a_call_does_not_set_is_none_that_its_user_has(
    server: ServerProcess, iam: Any, name: str, keys: dict[str, str]
) -> None:
    """Who may give rights to the bounded only gives none to who has no boundary by naming one."""
    bound = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    delegated = allow("iam:Put*", "iam:CreateRole", Condition={"StringEquals": {"iam:PermissionsBoundary": bound}})
    iam.put_user_policy(UserName=name, PolicyName="delegated", PolicyDocument=json.dumps(delegated))
    iam.create_role(RoleName=f"{name}-role", AssumeRolePolicyDocument=json.dumps(TRUST_ALL))
    given = f"PolicyName=more&PolicyDocument={quote(json.dumps(allow('*')))}&PermissionsBoundary={bound}"
    for holder in (f"Action=PutUserPolicy&UserName={name}", f"Action=PutRolePolicy&RoleName={name}-role"):
        assert b"<Code>AccessDenied</Code>" in query(server, keys, f"{holder}&{given}")
    assert iam.list_user_policies(UserName=name)["PolicyNames"] == ["delegated"]
    own = client(server, "iam", keys)
    assert not code(own.put_role_permissions_boundary, RoleName=f"{name}-role", PermissionsBoundary=bound)
    assert not code(
        own.put_role_policy, RoleName=f"{name}-role", PolicyName="more", PolicyDocument=json.dumps(allow("*"))
    )
    iam.delete_role_policy(RoleName=f"{name}-role", PolicyName="more")
    iam.delete_role(RoleName=f"{name}-role")


def test_a_number_is_bounded_however_many_digits_it_has(
    server: ServerProcess, iam: Any, name: str, keys: dict[str, str]
) -> None:
    """Zeros before it, or a number that is as long as a form may be: neither buys a session without an end."""
    role = iam.create_role(RoleName=f"{name}-role", AssumeRolePolicyDocument=json.dumps(TRUST_ALL))["Role"]
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(allow("*")))
    assume = f"Action=AssumeRole&RoleArn={role['Arn']}&RoleSessionName=night&DurationSeconds="
    for number in ("3601", "0000000036009999999", "9" * 5000):
        assert b"<Code>ValidationError</Code>" in query(server, keys, assume + number, "sts"), number[:20]
    token = "Action=GetSessionToken&DurationSeconds=0000000036009999999"
    assert b"<Code>ValidationError</Code>" in query(server, keys, token, "sts")
    assert b"<SessionToken>" in query(server, keys, f"{assume}003600", "sts")
    unknown = f"Action=GetPolicyVersion&PolicyArn=arn:aws:iam::aws:policy/AmazonS3FullAccess&VersionId=v{'9' * 5000}"
    assert b"<Code>NoSuchEntity</Code>" in query(server, keys, unknown)
    iam.delete_role(RoleName=role["RoleName"])


def query(server: ServerProcess, keys: dict[str, str], body: str, service: str = "iam") -> bytes:
    """A call with whatever parameters, signed."""
    request = AWSRequest(
        "POST",
        server.endpoint + "/",
        data=f"{body}&Version=2010-05-08",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    SigV4Auth(Credentials(keys["AccessKeyId"], keys["SecretAccessKey"]), service, REGION).add_auth(request)
    sent = urllib.request.Request(
        request.url,
        data=request.data.encode() if isinstance(request.data, str) else request.data,
        headers=dict(request.headers.items()),
        method="POST",
    )
    try:
        with urllib.request.urlopen(sent) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return bytes(error.read())


def test_a_user_may_be_bound_to_a_region(server: ServerProcess, iam: Any, name: str, keys: dict[str, str]) -> None:
    own, bucket = client(server, "s3", keys), f"{name}-located"
    document = allow(
        "s3:CreateBucket", "s3:PutBucketTagging", Condition={"StringLike": {"s3:LocationConstraint": REGION}}
    )
    iam.put_user_policy(UserName=name, PolicyName="located", PolicyDocument=json.dumps(document))
    assert code(own.create_bucket, Bucket=bucket) == "AccessDenied"
    assert (
        code(own.create_bucket, Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-9"})
        == "AccessDenied"
    )
    options = {"LocationConstraint": REGION, "Tags": [{"Key": "a", "Value": "b"}]}
    # who may is told what S3 says to everybody there: us-east-1 is named by naming nothing
    assert code(own.create_bucket, Bucket=bucket, CreateBucketConfiguration=options) == "InvalidLocationConstraint"
    s3 = client(server, "s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"Tags": options["Tags"]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": "b"}]
    directory = {
        "Location": {"Type": "AvailabilityZone", "Name": "z"},
        "Bucket": {"DataRedundancy": "SingleAvailabilityZone", "Type": "Directory"},
    }
    assert code(s3.create_bucket, Bucket=bucket + "-directory", CreateBucketConfiguration=directory) == "NotImplemented"


def test_a_copy_brings_tags_only_where_tags_may_be_put(
    server: ServerProcess, iam: Any, s3: Any, bucket: str, name: str, keys: dict[str, str]
) -> None:
    s3.put_object(Bucket=bucket, Key="tagged", Body=b"x", Tagging="team=blue")
    own = client(server, "s3", keys)
    may = ["s3:GetObject", "s3:PutObject", "s3:GetObjectTagging"]
    iam.put_user_policy(UserName=name, PolicyName="copies", PolicyDocument=json.dumps(allow(*may)))
    assert code(own.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/tagged") == "AccessDenied"
    assert not code(
        own.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/tagged", TaggingDirective="REPLACE"
    )
    only_red = [
        allow(*may)["Statement"][0],
        allow("s3:PutObjectTagging", Condition={"StringEquals": {"s3:RequestObjectTag/team": "red"}})["Statement"][0],
    ]
    iam.put_user_policy(
        UserName=name, PolicyName="copies", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": only_red})
    )
    assert code(own.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/tagged") == "AccessDenied"
    s3.put_object(Bucket=bucket, Key="tagged", Body=b"x", Tagging="team=red")
    assert not code(own.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/tagged")


# -- at rest


def test_no_secret_is_on_disk_and_the_key_is_needed(own_server: Callable[..., ServerProcess]) -> None:
    server = own_server()
    iam = client(server, "iam")
    iam.create_user(UserName="ana")
    iam.attach_user_policy(UserName="ana", PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    keys = iam.create_access_key(UserName="ana")["AccessKey"]
    by_admin = admin(server, "user", "add", "bea", "--grant", "Reader")
    session = client(server, "sts", keys).get_session_token()["Credentials"]
    assert client(server, "s3", session).list_buckets()["Buckets"] == []
    assert server.stop() == 0
    held = b"".join(path.read_bytes() for path in server.directory.rglob("*") if path.is_file())
    assert keys["AccessKeyId"].encode() in held
    for secret in (keys["SecretAccessKey"], by_admin["secret_key"], session["SecretAccessKey"]):
        assert secret.encode() not in held
    server.start()
    assert client(server, "s3", keys).list_buckets()["Buckets"] == []
    assert client(server, "s3", session).list_buckets()["Buckets"] == []
    assert server.stop() == 0
    key = next(server.directory.rglob("master.key"))
    key.write_bytes(base64.b64encode(b"another" + bytes(25)) + b"\n")
    server.start()
    # By another master key nothing opens; once a look has seen that it is another, nobody is served
    # (tests/server/test_other_keys.py).
    assert code(client(server, "s3", keys).list_buckets) in ("InternalError", "ServiceUnavailable")
    assert code(client(server, "s3", session).list_buckets) in ("InvalidToken", "ServiceUnavailable")
