"""Users with rights and keys, and clients that have them, for whatever asks IAM, STS or S3 as somebody."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from process import ACCESS, REGION, SECRET, ServerProcess

ACCOUNT = "000000000000"
_numbers = itertools.count(1)


def client(server: ServerProcess, service: str, keys: dict[str, str] | None = None, **config: Any) -> Any:
    given = keys or {"AccessKeyId": ACCESS, "SecretAccessKey": SECRET}
    return boto3.client(
        service,
        endpoint_url=server.endpoint,
        region_name=REGION,
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given.get("SessionToken"),
        config=Config(
            retries={"max_attempts": 0}, **({"s3": {"addressing_style": "path"}} if service == "s3" else {}), **config
        ),
    )


def code(method: Callable[..., Any], **options: Any) -> str:
    try:
        method(**options)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def allow(*actions: str, resource: str = "*", effect: str = "Allow", **more: Any) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": effect, "Action": list(actions), "Resource": resource, **more}],
    }


def trust(principal: str, *more: str) -> dict[str, Any]:
    """The document by which a role lets a principal assume it, and take more actions on it."""
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": principal}, "Action": ["sts:AssumeRole", *more]}],
    }


TRUST_ALL = trust(f"arn:aws:iam::{ACCOUNT}:root")


@pytest.fixture(scope="module")
def iam(server: ServerProcess) -> Any:
    return client(server, "iam")


@pytest.fixture
def name(iam: Any) -> Iterator[str]:
    """A new user's name; whatever is left of its kind is removed."""
    made = f"u{next(_numbers)}"
    iam.create_user(UserName=made)
    yield made
    for group in iam.list_groups_for_user(UserName=made)["Groups"]:
        iam.remove_user_from_group(UserName=made, GroupName=group["GroupName"])
    for attached in iam.list_attached_user_policies(UserName=made)["AttachedPolicies"]:
        iam.detach_user_policy(UserName=made, PolicyArn=attached["PolicyArn"])
    for policy in iam.list_user_policies(UserName=made)["PolicyNames"]:
        iam.delete_user_policy(UserName=made, PolicyName=policy)
    for key in iam.list_access_keys(UserName=made)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=made, AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName=made)


@pytest.fixture
def keys(iam: Any, name: str) -> dict[str, str]:
    return dict(iam.create_access_key(UserName=name)["AccessKey"])
