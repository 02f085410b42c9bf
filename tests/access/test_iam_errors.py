"""Each wrong call of IAM and STS gets the error of AWS, as iam_errors.tsv says; every error of botocore's model is
accounted for."""

from __future__ import annotations

import csv
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from access import where
from access.accounts import TRUST_ALL, allow, client
from process import ACCESS, REGION, SECRET
from s4.http.iam import sts
from s4.http.iam.endpoint import IAM
from s4.http.iam.protocol import STATUS

server = where.server

TABLE = Path(__file__).with_name("iam_errors.tsv")
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
ACCOUNT = "arn:aws:iam::000000000000"
# Errors of the model that no call gets here, and why.
NEVER = {
    "ServiceFailure": "of a server's fault",
    "ConcurrentModification": "changes are done over instead",
    "RegionDisabledException": "there is one region",
    "EntityTemporarilyUnmodifiable": "nothing is ever half made",
    "UnmodifiableEntity": "there are no service-linked roles",
    "PolicyNotAttachable": "there are no policies of service roles",
    "OpenIdIdpCommunicationError": "no thumbprint is fetched",
}
# Tested by themselves, with an issuer: test_sts.py.
ELSEWHERE = {
    ("AssumeRoleWithWebIdentity", one)
    for one in (
        "ExpiredTokenException",
        "IDPCommunicationError",
        "IDPRejectedClaim",
        "MalformedPolicyDocument",
        "PackedPolicyTooLarge",
    )
}
# What has no limit of its own: deleting, and what replaces what is there.
UNLIMITED = {
    "DeletePolicy",
    "DeletePolicyVersion",
    "SetDefaultPolicyVersion",
    "DeleteUserPolicy",
    "DetachUserPolicy",
    "DeleteGroupPolicy",
    "DetachGroupPolicy",
    "DeleteRolePolicy",
    "DetachRolePolicy",
    "UpdateUser",
    "DeleteUser",
    "UpdateAccessKey",
    "DeleteAccessKey",
    "UpdateGroup",
    "DeleteGroup",
    "RemoveUserFromGroup",
    "DeleteRole",
    "CreateGroup",
}
# What the model lists and the parameters cannot bring about.
OTHERWISE = {
    ("CreateGroup", "NoSuchEntity"),
    ("AssumeRole", "ExpiredTokenException"),
    ("UpdateUser", "EntityAlreadyExists"),
    ("UpdateAccessKey", "InvalidInput"),
    *((f"ListAttached{kind}Policies", "InvalidInput") for kind in ("User", "Group", "Role")),
}


@pytest.fixture(scope="module")
def names(server: Any) -> dict[str, str]:
    """What the table's braces stand for."""
    iam = client(server, "iam")
    document = json.dumps(allow("s3:GetObject"))
    arn = iam.create_policy(PolicyName="managed", PolicyDocument=document)["Policy"]["Arn"]
    full_arn = iam.create_policy(PolicyName="versions", PolicyDocument=document)["Policy"]["Arn"]
    for _ in range(4):
        iam.create_policy_version(PolicyArn=full_arn, PolicyDocument=document)
    arns = [
        iam.create_policy(PolicyName=f"many-{number}", PolicyDocument=document)["Policy"]["Arn"] for number in range(20)
    ]
    for name, policies in (("busy", [arn]), ("full", arns)):
        iam.create_user(UserName=name)
        iam.create_group(GroupName=name)
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST_ALL))["Role"]["Arn"]
        for one in policies:
            iam.attach_user_policy(UserName=name, PolicyArn=one)
            iam.attach_group_policy(GroupName=name, PolicyArn=one)
            iam.attach_role_policy(RoleName=name, PolicyArn=one)
    iam.add_user_to_group(UserName="busy", GroupName="busy")
    for number in range(10):
        iam.create_group(GroupName=f"g{number}")
        iam.add_user_to_group(UserName="full", GroupName=f"g{number}")
    iam.put_user_policy(UserName="busy", PolicyName="assume", PolicyDocument=json.dumps(allow("sts:AssumeRole")))
    for _ in range(16):
        iam.create_access_key(UserName="full")
    key = iam.create_access_key(UserName="busy")["AccessKey"]
    provider = iam.create_open_id_connect_provider(
        Url="https://idp.example.org", ClientIDList=[f"client-{number}" for number in range(100)]
    )["OpenIDConnectProviderArn"]
    long = json.dumps(allow(*(f"s3:GetObject{number:06d}" for number in range(1000))))
    return {
        "user": "busy",
        "group": "busy",
        "group2": "full",
        "role": "busy",
        "rolearn": role.replace("full", "busy"),
        "policy": "managed",
        "arn": arn,
        "fullarn": full_arn,
        "full": "full",
        "key": key["AccessKeyId"],
        "secret": key["SecretAccessKey"],
        "provider": provider,
        "default": "v1",
        "longdoc": long,
        "account": ACCOUNT,
    }


def ask(server: Any, service: str, action: str, parameters: str, signer: Credentials | None) -> tuple[int, str, str]:
    """(status, code, message)."""
    version = {"iam": "2010-05-08", "sts": "2011-06-15"}[service]
    body = "&".join(
        piece
        for piece in (f"Action={action}" if "Action=" not in parameters else "", f"Version={version}", parameters)
        if piece
    )
    request = AWSRequest(
        "POST", server.endpoint + "/", data=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    if signer is not None:
        SigV4Auth(signer, service, REGION).add_auth(request)
    sent = urllib.request.Request(request.url, data=body.encode(), headers=dict(request.headers.items()), method="POST")
    try:
        with urllib.request.urlopen(sent) as answer:
            return answer.status, "", ""
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode()
        found, said = re.search("<Code>(.*?)</Code>", text), re.search("<Message>(.*?)</Message>", text)
        return error.code, found[1] if found else text, said[1] if said else ""


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['operation']}-{row['input']}" for row in ROWS])
def test_a_wrong_call_gets_the_error_of_aws(server: Any, names: dict[str, str], row: dict[str, str]) -> None:
    parameters = row["parameters"]
    for name, value in names.items():
        parameters = parameters.replace("{" + name + "}", urllib.request.quote(value, safe=""))  # type: ignore[attr-defined]
    service = "sts" if row["operation"] in sts.OPERATIONS else "iam"
    signer = (
        Credentials(names["key"], names["secret"])
        if row["input"].startswith("by a user")
        else Credentials(ACCESS, SECRET)
    )
    status, code, message = ask(
        server, service, row["operation"], parameters, signer if row["input"] != "nobody" else None
    )
    assert (code, status) == (row["code"], int(row["status"])), message
    assert message


def test_the_table_accounts_for_every_error_of_the_model() -> None:
    have = {(row["operation"], row["code"]) for row in ROWS}
    for service, operations in (("iam", IAM), ("sts", sts.OPERATIONS)):
        model = botocore.session.get_session().get_service_model(service)
        for name in operations:
            codes = {
                shape.metadata.get("error", {}).get("code", shape.name)
                for shape in model.operation_model(name).error_shapes
            }
            assert codes - set(NEVER) <= {code for one, code in have | ELSEWHERE | OTHERWISE if one == name} | (
                {"LimitExceeded"} if name in UNLIMITED else set()
            ), name
            assert name.startswith("List") or any(one == name for one, _ in have), name
    for row in ROWS:
        assert STATUS[row["code"]] == int(row["status"]), row
        assert row["source"]
