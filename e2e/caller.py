"""A program that knows who it is by its environment alone: an S4User's keys, or a ServiceAccount's token.

GOAL is served (it uses BUCKET, and not OTHER), CODE (it is refused so), or renewed: it goes on until Kubernetes has put
another token into the file, buys credentials with that one, and is refused with the first once that has ended.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

bucket, goal = os.environ["BUCKET"], os.environ["GOAL"]


def served() -> None:
    s3 = boto3.Session().client("s3")
    s3.put_object(Bucket=bucket, Key=goal, Body=b"hello")
    assert s3.get_object(Bucket=bucket, Key=goal)["Body"].read() == b"hello"
    try:
        s3.list_objects_v2(Bucket=os.environ["OTHER"])
    except ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied", error
    else:
        raise AssertionError("it may list somebody else's bucket")


def code_of(token: str) -> str:
    try:
        boto3.client("sts").assume_role_with_web_identity(
            RoleArn=os.environ["AWS_ROLE_ARN"], RoleSessionName="old", WebIdentityToken=token
        )
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


if goal == "served":
    served()
elif goal == "renewed":
    file = Path(os.environ["AWS_WEB_IDENTITY_TOKEN_FILE"])
    first = file.read_text()
    served()
    while file.read_text() == first:
        time.sleep(1)  # until kubelet writes another one, at four fifths of its time
    served()
    while not code_of(first):
        time.sleep(1)  # until the first one has expired
    assert code_of(first) == "ExpiredTokenException", code_of(first)
    served()
else:
    try:
        boto3.Session().client("s3").list_objects_v2(Bucket=bucket)
    except ClientError as error:
        assert error.response["Error"]["Code"] == goal, error
    else:
        raise AssertionError(f"it was not refused with {goal}")
print("all done")
