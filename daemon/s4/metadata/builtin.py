"""Managed policies that are always there, under the names that AWS gives them."""

from __future__ import annotations

import json

_ARN = "arn:aws:iam::aws:policy/"


def _allow(*actions: str) -> str:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


BUILT_IN = {
    f"{_ARN}AdministratorAccess": _allow("*"),
    f"{_ARN}AmazonS3FullAccess": _allow("s3:*"),
    f"{_ARN}AmazonS3ReadOnlyAccess": _allow("s3:Get*", "s3:List*", "s3:Describe*"),
    f"{_ARN}IAMFullAccess": _allow("iam:*"),
    f"{_ARN}IAMReadOnlyAccess": _allow("iam:Get*", "iam:List*"),
}
