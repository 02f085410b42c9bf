"""A program without any S3 keys: its Kubernetes ServiceAccount's token buys them. The first half is its
administrator's.

boto3 does the second half by itself, from AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE, as in any other cloud.
"""

from __future__ import annotations

import json
import os

import boto3

ISSUER, SUBJECT, BUCKET = "kubernetes.default.svc", os.environ["SUBJECT"], "of-a-service-account"

keys = {"aws_access_key_id": os.environ["accessKey"], "aws_secret_access_key": os.environ["secretKey"]}  # noqa: SIM112 - the Secret's names
endpoint = os.environ["AWS_ENDPOINT_URL_S3"]
iam = boto3.client("iam", endpoint_url=endpoint, **keys)
root = boto3.client("s3", **keys)
root.create_bucket(Bucket=BUCKET)
root.create_bucket(Bucket=BUCKET + "-other")
provider = iam.create_open_id_connect_provider(Url=f"https://{ISSUER}", ClientIDList=["s4"])["OpenIDConnectProviderArn"]


def role(name: str, subject: str) -> str:
    condition = {"StringEquals": {f"{ISSUER}:sub": subject, f"{ISSUER}:aud": "s4"}}
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Federated": provider},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": condition,
            }
        ],
    }
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    may = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "s3:*", "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]}
        ],
    }
    iam.put_role_policy(RoleName=name, PolicyName="its-bucket", PolicyDocument=json.dumps(may))
    return arn


def refused(call: object, code: str) -> None:
    try:
        call()  # type: ignore[operator]
    except root.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == code, error
    else:
        raise AssertionError(f"not refused with {code}")


own, others = role("program", SUBJECT), role("another", SUBJECT + "-of-another-account")
for name in ("accessKey", "secretKey"):
    del os.environ[name]
os.environ |= {"AWS_ROLE_ARN": own, "AWS_WEB_IDENTITY_TOKEN_FILE": "/token/token", "AWS_ENDPOINT_URL_STS": endpoint}

s3 = boto3.Session().client("s3")
s3.put_object(Bucket=BUCKET, Key="k", Body=b"hello")
assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"hello"
refused(lambda: s3.list_objects_v2(Bucket=BUCKET + "-other"), "AccessDenied")
os.environ["AWS_ROLE_ARN"] = others
refused(lambda: boto3.Session().client("s3").list_objects_v2(Bucket=BUCKET), "AccessDenied")
print("all done")
