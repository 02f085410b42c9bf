"""What a tenant's pod reaches with its Bucket's keys: its own bucket, nothing of another's, nothing on an admin port.
GOAL is kept, or taken-back once its namespace is no longer allowed."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import urllib.error
import urllib.request

import boto3
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError

bucket, victim, admin, kept = (
    os.environ["BUCKET_NAME"],
    os.environ["VICTIM"],
    os.environ["ADMIN"],
    os.environ["GOAL"] == "kept",
)
s3, keys = boto3.client("s3"), boto3.Session().get_credentials()
region = os.environ["BUCKET_REGION"]
iam = boto3.client("iam", region_name=region, endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"])


def code(call: object) -> str:
    try:
        call()  # type: ignore[operator]
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def knock(scheme: str, signer: type | None = None, service: str = "s4-admin") -> str:
    """What an admin port says to the list of users."""
    request = AWSRequest(
        "GET", f"{scheme}://{admin}/admin/v1/users", {"x-amz-content-sha256": hashlib.sha256(b"").hexdigest()}
    )
    if signer is not None:
        signer(keys, service, region).add_auth(request)
    # A stranger has no authority to trust.
    unverified = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(request.url, headers=dict(request.headers)), timeout=10, context=unverified
        ) as answer:
            return f"let in: {answer.read()!r}"
    except urllib.error.HTTPError as error:
        return str(json.loads(error.read())["error"])
    except OSError:
        return "nobody answers"  # where NetworkPolicies are enforced


assert code(lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x")) == ("" if kept else "InvalidAccessKeyId")
everybody = {
    "Version": "2012-10-17",
    "Statement": {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{victim}", f"arn:aws:s3:::{victim}/*"],
    },
}
lent = {"TagSet": [{"Key": "s4.dev/adopted-by", "Value": "*/*"}]}
for call in (
    lambda: s3.get_object(Bucket=victim, Key="k"),
    lambda: s3.put_object(Bucket=victim, Key="k", Body=b"x"),
    lambda: s3.list_objects_v2(Bucket=victim),
    lambda: s3.put_bucket_tagging(Bucket=victim, Tagging=lent),
    lambda: s3.delete_bucket(Bucket=victim),
    lambda: s3.get_bucket_policy(Bucket=victim),
    lambda: s3.put_bucket_policy(Bucket=victim, Policy=json.dumps(everybody)),
    lambda: s3.delete_public_access_block(Bucket=victim),
    lambda: s3.put_bucket_versioning(Bucket=victim, VersioningConfiguration={"Status": "Enabled"}),
    lambda: s3.put_object_lock_configuration(Bucket=victim, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}),
    lambda: s3.put_object_legal_hold(Bucket=victim, Key="k", LegalHold={"Status": "ON"}),
    lambda: s3.copy_object(Bucket=bucket, Key="stolen", CopySource={"Bucket": victim, "Key": "k"}),
    lambda: iam.create_access_key(UserName="root"),
):
    assert code(call) in (("AccessDenied",) if kept else ("InvalidAccessKeyId", "InvalidClientTokenId")), code(call)

unknown = "AccessDenied" if kept else "InvalidAccessKeyId"
for said, wanted in (
    (knock("http", SigV4Auth), "InvalidRequest"),
    (knock("https"), "AccessDenied"),
    (knock("https", SigV4QueryAuth), "AccessDenied"),
    (knock("https", SigV4Auth, "s3"), "SignatureDoesNotMatch"),
    (knock("https", SigV4Auth), unknown),
):
    assert said in (wanted, "nobody answers"), (said, wanted)
print("all done")
