"""Something of everything that a store can hold, made through S3 and IAM; all that can be seen of it; and what must
still be possible with it.

What is seen of a store is a table, name to answer, so that two looks can be compared: every version's bytes, headers,
tags and locks, every document of every bucket, uploads in progress with their parts, users, keys, groups, roles and
policies.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from access.accounts import TRUST_ALL, allow, client, code
from access.test_encryption import MODES

SIZES = (0, 100, 3_000, 5_000, 70_000, 300_000, 2_500_000)
PART = 5 << 20
BUCKETS = ("locked", "plain", "sealed", "versions")
DOCUMENTS = (
    "accelerate_configuration",
    "acl",
    "cors",
    "encryption",
    "lifecycle_configuration",
    "location",
    "ownership_controls",
    "policy",
    "request_payment",
    "tagging",
    "versioning",
    "website",
)


def content(seed: object, size: int) -> bytes:
    return random.Random(str(seed)).randbytes(size)


class Corpus:
    """`fill` is run on the old program; `seen`, before and after; `goes_on` on the new one."""

    def __init__(self, where: Any) -> None:
        self.where = where
        self.until = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)).replace(microsecond=0)
        self.upload = self.locked = ""
        self.keys: dict[str, dict[str, str]] = {}

    def client(self, service: str, **keys: Any) -> Any:
        return client(self.where, service, **keys)

    # -- making it

    def fill(self) -> None:
        s3, iam = self.client("s3"), self.client("iam")
        self._objects(s3)
        self._versions(s3)
        self._locks(s3)
        self._sealed(s3)
        self._upload(s3)
        self._people(iam)
        self._documents(s3)

    def _objects(self, s3: Any) -> None:
        s3.create_bucket(Bucket="plain")
        for size in SIZES:
            s3.put_object(
                Bucket="plain",
                Key=f"size/{size}",
                Body=content(size, size),
                ContentType="text/x-s4",
                CacheControl="max-age=7",
                Metadata={"a": "b", "n": str(size)},
                Tagging="color=red&size=" + str(size),
                ChecksumAlgorithm="CRC32",
            )
        for number in range(4):  # the same content in many places
            s3.put_object(Bucket="plain", Key=f"same/{number}", Body=content("same", 90_000))
        s3.copy_object(
            Bucket="plain",
            Key="copy of a copy",
            CopySource="plain/same/1",
            MetadataDirective="REPLACE",
            Metadata={"new": "one"},
        )
        s3.put_object(Bucket="plain", Key="gone", Body=content("gone", 60_000))
        s3.delete_object(Bucket="plain", Key="gone")
        for key in ("ü/ñ 漢字", "a//b", "..", "x" * 900):
            s3.put_object(Bucket="plain", Key=key, Body=key.encode())

    def _versions(self, s3: Any) -> None:
        s3.create_bucket(Bucket="versions")
        s3.put_object(Bucket="versions", Key="k", Body=b"before there were versions")
        s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
        for number in range(5):
            s3.put_object(Bucket="versions", Key="k", Body=content(number, 40_000 * number))
        s3.delete_object(Bucket="versions", Key="k")
        for key in ("deleted", "suspended"):
            s3.put_object(Bucket="versions", Key=key, Body=b"one")
        s3.delete_object(Bucket="versions", Key="deleted")
        s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Suspended"})
        s3.put_object(Bucket="versions", Key="suspended", Body=b"two")

    def _locks(self, s3: Any) -> None:
        s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        kept = s3.put_object(
            Bucket="locked",
            Key="compliance",
            Body=content("kept", 30_000),
            ObjectLockMode="COMPLIANCE",
            ObjectLockRetainUntilDate=self.until,
        )
        self.locked = kept["VersionId"]
        s3.put_object(Bucket="locked", Key="held", Body=b"held", ObjectLockLegalHoldStatus="ON")
        rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 2}}}
        for _ in range(100):  # 0.7 says Unavailable until the clocks of a cluster that just began were compared
            if not code(s3.put_object_lock_configuration, Bucket="locked", ObjectLockConfiguration=rule):
                break
        s3.put_object(Bucket="locked", Key="by default", Body=b"default")
        s3.delete_object(Bucket="locked", Key="held")  # a marker above it

    def _sealed(self, s3: Any) -> None:
        s3.create_bucket(Bucket="sealed")
        for name, (write, _, _) in MODES.items():
            for size in (100, 200_000):
                s3.put_object(Bucket="sealed", Key=f"{name}/{size}", Body=content(name, size), **write)
        s3.put_bucket_encryption(
            Bucket="sealed",
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            },
        )
        s3.put_object(Bucket="sealed", Key="plain/by default", Body=content("default", 7_000))

    def _documents(self, s3: Any) -> None:
        ana = {"AWS": "arn:aws:iam::000000000000:user/ana"}
        policy = allow("s3:GetObject", resource="arn:aws:s3:::plain/size/*", Principal=ana)
        s3.put_bucket_policy(Bucket="plain", Policy=json.dumps(policy))
        s3.put_bucket_cors(
            Bucket="plain",
            CORSConfiguration={
                "CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://a.example"], "MaxAgeSeconds": 7}]
            },
        )
        s3.put_bucket_tagging(Bucket="plain", Tagging={"TagSet": [{"Key": "team", "Value": "blue"}]})
        s3.put_bucket_website(
            Bucket="plain",
            WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}, "ErrorDocument": {"Key": "oh no"}},
        )
        rules = [
            {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30}},
            {
                "ID": "tagged",
                "Status": "Enabled",
                "Filter": {"And": {"Prefix": "t/", "Tags": [{"Key": "a", "Value": "b"}]}},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 5, "NewerNoncurrentVersions": 2},
            },
            {
                "ID": "uploads",
                "Status": "Disabled",
                "Filter": {"Prefix": ""},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
            },
        ]
        for bucket in ("plain", "versions"):
            s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})

    def _upload(self, s3: Any) -> None:
        done = s3.create_multipart_upload(Bucket="plain", Key="parts/done")["UploadId"]
        parts = [self._part(s3, "parts/done", done, number, size) for number, size in ((1, PART), (2, 400_000))]
        s3.complete_multipart_upload(Bucket="plain", Key="parts/done", UploadId=done, MultipartUpload={"Parts": parts})
        self.upload = s3.create_multipart_upload(Bucket="plain", Key="parts/open", Metadata={"m": "1"}, Tagging="x=y")[
            "UploadId"
        ]
        self._part(s3, "parts/open", self.upload, 1, PART)
        self._part(s3, "parts/open", self.upload, 2, 1000)

    def _part(self, s3: Any, key: str, upload: str, number: int, size: int) -> dict[str, Any]:
        made = s3.upload_part(
            Bucket="plain", Key=key, UploadId=upload, PartNumber=number, Body=content((key, number), size)
        )
        return {"PartNumber": number, "ETag": made["ETag"]}

    def _people(self, iam: Any) -> None:
        iam.create_group(GroupName="readers")
        iam.put_group_policy(
            GroupName="readers", PolicyName="inline", PolicyDocument=json.dumps(allow("s3:ListBucket", "s3:GetObject"))
        )
        policy = iam.create_policy(
            PolicyName="writes", PolicyDocument=json.dumps(allow("s3:PutObject", resource="arn:aws:s3:::plain/*"))
        )["Policy"]["Arn"]
        for name in ("ana", "ben"):
            iam.create_user(UserName=name)
            made = iam.create_access_key(UserName=name)["AccessKey"]
            self.keys[name] = {"AccessKeyId": made["AccessKeyId"], "SecretAccessKey": made["SecretAccessKey"]}
        iam.add_user_to_group(GroupName="readers", UserName="ben")
        iam.attach_user_policy(UserName="ana", PolicyArn=policy)
        iam.put_user_policy(
            UserName="ben",
            PolicyName="no",
            PolicyDocument=json.dumps(allow("s3:GetObject", resource="arn:aws:s3:::plain/same/2", effect="Deny")),
        )
        iam.create_role(RoleName="role", AssumeRolePolicyDocument=json.dumps(TRUST_ALL))
        iam.put_role_policy(RoleName="role", PolicyName="reads", PolicyDocument=json.dumps(allow("s3:GetObject")))
        iam.put_user_policy(UserName="ana", PolicyName="becomes", PolicyDocument=json.dumps(allow("sts:AssumeRole")))
        self.keys["session"] = self._session()

    def _session(self) -> dict[str, str]:
        made = self.client("sts", keys=self.keys["ana"]).assume_role(
            RoleArn="arn:aws:iam::000000000000:role/role", RoleSessionName="session"
        )["Credentials"]
        return {name: made[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}

    # -- looking at it

    def seen(self) -> dict[str, Any]:
        return dict(self._all())

    def _all(self) -> Iterator[tuple[str, Any]]:
        s3, iam = self.client("s3"), self.client("iam")
        for bucket in BUCKETS:
            yield from self._bucket(s3, bucket)
        for part in ("users", "groups", "roles", "policies"):
            yield part, answer(getattr(iam, f"list_{part}"), **({"Scope": "Local"} if part == "policies" else {}))
        for policy in iam.list_policies(Scope="Local")["Policies"]:
            yield (
                policy["Arn"],
                answer(iam.get_policy_version, PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"]),
            )
        for kind, name in (("user", "ana"), ("user", "ben"), ("group", "readers"), ("role", "role")):
            which = {f"{kind.title()}Name": name}
            yield f"policies attached to {name}", answer(getattr(iam, f"list_attached_{kind}_policies"), **which)
            for inline in getattr(iam, f"list_{kind}_policies")(**which)["PolicyNames"]:
                yield (
                    f"policy {inline} of {name}",
                    answer(getattr(iam, f"get_{kind}_policy"), **which, PolicyName=inline),
                )
        for user in ("ana", "ben"):
            yield f"groups of {user}", answer(iam.list_groups_for_user, UserName=user)
            yield f"keys of {user}", answer(iam.list_access_keys, UserName=user)

    def _bucket(self, s3: Any, bucket: str) -> Iterator[tuple[str, Any]]:
        for document in DOCUMENTS:
            yield f"{document} of {bucket}", answer(getattr(s3, f"get_bucket_{document}"), Bucket=bucket)
        yield f"lock of {bucket}", answer(s3.get_object_lock_configuration, Bucket=bucket)
        yield f"public access of {bucket}", answer(s3.get_public_access_block, Bucket=bucket)
        listed = s3.list_object_versions(Bucket=bucket)
        yield f"markers of {bucket}", listed.get("DeleteMarkers", [])
        for version in listed.get("Versions", []):
            name = f"{bucket}/{version['Key']} {version['VersionId']}"
            yield f"{name} listed", version
            yield from self._version(
                s3, bucket, name, {"Bucket": bucket, "Key": version["Key"], "VersionId": version["VersionId"]}
            )
        for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            yield f"upload of {upload['Key']}", upload
            yield (
                f"parts of {upload['Key']}",
                answer(s3.list_parts, Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]),
            )

    def _version(self, s3: Any, bucket: str, name: str, which: dict[str, str]) -> Iterator[tuple[str, Any]]:
        given = MODES[which["Key"].partition("/")[0]][1] if bucket == "sealed" else {}
        got = s3.get_object(**which, **given)
        yield f"{name} bytes", hashlib.sha256(got.pop("Body").read()).hexdigest()
        got["ResponseMetadata"] = None
        yield f"{name} headers", got
        yield f"{name} tags", answer(s3.get_object_tagging, **which)
        yield f"{name} acl", answer(s3.get_object_acl, **which)
        if bucket == "locked":
            yield f"{name} retention", answer(s3.get_object_retention, **which)
            yield f"{name} hold", answer(s3.get_object_legal_hold, **which)

    # -- going on with it

    def goes_on(self) -> None:
        """What was begun is ended, what was forbidden still is, whoever could do something still can."""
        s3 = self.client("s3")
        parts = [self._part(s3, "parts/open", self.upload, number, size) for number, size in ((2, PART), (3, 77))]
        first = s3.list_parts(Bucket="plain", Key="parts/open", UploadId=self.upload)["Parts"][0]
        parts.insert(0, {"PartNumber": 1, "ETag": first["ETag"]})
        s3.complete_multipart_upload(
            Bucket="plain", Key="parts/open", UploadId=self.upload, MultipartUpload={"Parts": parts}
        )
        whole = b"".join(content(("parts/open", number), size) for number, size in ((1, PART), (2, PART), (3, 77)))
        got = s3.get_object(Bucket="plain", Key="parts/open")
        assert (got["Body"].read(), got["Metadata"], got["TagCount"]) == (whole, {"m": "1"}, 1)
        assert code(s3.delete_object, Bucket="locked", Key="compliance", VersionId=self.locked) == "AccessDenied"
        ana, ben, session = (self.client("s3", keys=self.keys[name]) for name in ("ana", "ben", "session"))
        ana.put_object(Bucket="plain", Key="size/of ana", Body=b"x")
        ana.get_object(Bucket="plain", Key="size/100")
        assert code(ana.get_object, Bucket="plain", Key="same/1") == "AccessDenied"
        ben.get_object(Bucket="plain", Key="same/1")
        assert code(ben.get_object, Bucket="plain", Key="same/2") == "AccessDenied"
        assert code(ben.put_object, Bucket="plain", Key="k", Body=b"x") == "AccessDenied"
        session.get_object(Bucket="plain", Key="same/2")
        self._session()
        for size in (5_000, 300_000):  # deduplicated against what the old one wrote, deleted, and written anew
            s3.put_object(Bucket="plain", Key=f"again/{size}", Body=content(size, size))
            s3.delete_object(Bucket="plain", Key=f"size/{size}")
            assert s3.get_object(Bucket="plain", Key=f"again/{size}")["Body"].read() == content(size, size)


def answer(call: Callable[..., Any], **given: Any) -> Any:
    """What is answered, or the code of the error."""
    try:
        found = call(**given)
    except ClientError as error:
        return error.response["Error"]["Code"]
    found.pop("ResponseMetadata", None)
    return found


NEVER_PUT = {"LegalHold": {"Status": "OFF"}}


def less(before: Any, after: Any) -> bool:
    """Whether something that was seen is not there any more, or is otherwise. There may be more. Since 0.8 times are
    in whole seconds, settings that S4 lacks read as unset, and a legal hold that was never put is told from one that
    is off."""
    if before == "NotImplemented" or (before == NEVER_PUT and after == "NoSuchObjectLockConfiguration"):
        return False
    if isinstance(before, datetime.datetime) and isinstance(after, datetime.datetime):
        return before.replace(microsecond=0) != after.replace(microsecond=0)
    if isinstance(before, dict) and isinstance(after, dict):
        return any(name not in after or less(value, after[name]) for name, value in before.items())
    if isinstance(before, list) and isinstance(after, list):
        return len(before) != len(after) or any(map(less, before, after))
    return bool(before != after)


def compare(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert len(before) > 200, "nearly nothing was looked at"
    assert set(before) == set(after)
    differ = [f"{name}: {value} is now {after[name]}" for name, value in before.items() if less(value, after[name])]
    assert not differ, differ[:5]
