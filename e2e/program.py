"""An SDK program as users write one: all that it knows comes from a Bucket's Secret and ConfigMap."""

from __future__ import annotations

import os

import boto3

bucket = os.environ["BUCKET_NAME"]
s3 = boto3.client("s3")
s3.put_object(Bucket=bucket, Key="hello.txt", Body=b"hello")
assert s3.get_object(Bucket=bucket, Key="hello.txt")["Body"].read() == b"hello"

upload = s3.create_multipart_upload(Bucket=bucket, Key="large")["UploadId"]
parts = [os.urandom(5 << 20), os.urandom(1 << 20)]
done = [
    {
        "PartNumber": number,
        "ETag": s3.upload_part(Bucket=bucket, Key="large", UploadId=upload, PartNumber=number, Body=part)["ETag"],
    }
    for number, part in enumerate(parts, 1)
]
s3.complete_multipart_upload(Bucket=bucket, Key="large", UploadId=upload, MultipartUpload={"Parts": done})
assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == b"".join(parts)

assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["hello.txt", "large"]
for other in ("somebody-elses", "s4-operator-check"):
    try:
        s3.put_object(Bucket=other, Key="x", Body=b"x")
    except s3.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] in ("AccessDenied", "NoSuchBucket"), error
    else:
        raise AssertionError("the keys are good for another bucket")
print("all done")
