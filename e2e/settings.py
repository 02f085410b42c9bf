"""What a Bucket's `quota`, `cors`, `access`, `lifecycle` and `encryption` make of it, as programs and browsers see it.
GOAL is made or taken-back."""

from __future__ import annotations

import os

import boto3
from botocore import UNSIGNED
from botocore.config import Config

bucket, made = os.environ["BUCKET_NAME"], os.environ["GOAL"] == "made"
s3 = boto3.client("s3")
anybody = boto3.client("s3", config=Config(signature_version=UNSIGNED))


def code(call: object) -> str:
    try:
        call()  # type: ignore[operator]
    except s3.exceptions.ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


s3.put_object(Bucket=bucket, Key="k", Body=b"x")
sealed = s3.head_object(Bucket=bucket, Key="k").get("ServerSideEncryption")
topic = {"TopicArn": "arn:aws:sns:us-east-1:000000000000:nobody", "Events": ["s3:ObjectRemoved:*"]}
s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"TopicConfigurations": [topic]})
s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
large = code(lambda: s3.put_object(Bucket=bucket, Key="large", Body=b"x" * (2 << 20)))
stranger = code(lambda: anybody.get_object(Bucket=bucket, Key="k"))
listed = code(lambda: anybody.list_objects_v2(Bucket=bucket))
rules = code(lambda: s3.get_bucket_cors(Bucket=bucket))
ends = code(lambda: s3.get_bucket_lifecycle_configuration(Bucket=bucket))
wanted = (
    ("QuotaExceeded", "", "AccessDenied", "", "")
    if made
    else ("", "AccessDenied", "AccessDenied", "NoSuchCORSConfiguration", "NoSuchLifecycleConfiguration")
)
assert sealed == ("aws:kms" if made else None), sealed
assert (large, stranger, listed, rules, ends) == wanted, (large, stranger, listed, rules, ends)
print("all done")
