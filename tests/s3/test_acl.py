"""Access control lists are answered as they were put, what they give the owner too; and as older programs kept them."""

from __future__ import annotations

from typing import Any

import pytest

from process import ServerProcess
from s4.s3 import acl

ME, OTHER = "a" * 64, "b" * 64


def test_what_older_programs_kept_is_read() -> None:
    """0.7 kept the grants to others, and knew that the owner has everything."""
    assert acl.decode(f'[[["{OTHER}","READ"]]]') == acl.Acl(((OTHER, "READ"),), ("FULL_CONTROL",))
    assert acl.decode("") == acl.Acl()
    assert acl.encode(acl.Acl()) == ""


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"x-amz-acl": "private"}, acl.Acl()),
        ({"x-amz-grant-full-control": f"id={ME}"}, acl.Acl()),
        ({"x-amz-grant-read": f"id={ME}"}, acl.Acl((), ("READ",))),
        ({"x-amz-grant-read": f"id={OTHER}"}, acl.Acl(((OTHER, "READ"),), ())),
        ({"x-amz-grant-read": f"id={OTHER},id={ME}"}, acl.Acl(((OTHER, "READ"),), ("READ",))),
    ],
)
def test_grants_in_headers_are_all_there_are(headers: dict[str, str], wanted: acl.Acl) -> None:
    found = acl.from_headers(headers, ME)
    assert found == wanted
    assert acl.decode(acl.encode(wanted)) == wanted


@pytest.fixture
def open_bucket(s3: Any, bucket: str) -> str:
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]})
    return bucket


@pytest.mark.parametrize("permissions", [[], ["READ"], ["WRITE_ACP", "READ_ACP"], ["FULL_CONTROL"]], ids=str)
def test_an_owners_own_grants_come_back(s3: Any, open_bucket: str, permissions: list[str]) -> None:
    bucket = open_bucket
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    owner = s3.get_bucket_acl(Bucket=bucket)["Owner"]
    own = {"Type": "CanonicalUser", **owner}
    wanted = [{"Grantee": own, "Permission": one} for one in permissions]
    wanted.append({"Grantee": {"Type": "CanonicalUser", "ID": OTHER}, "Permission": "READ"})
    policy = {"Owner": owner, "Grants": wanted}
    s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)
    s3.put_object_acl(Bucket=bucket, Key="k", AccessControlPolicy=policy)
    assert s3.get_bucket_acl(Bucket=bucket)["Grants"] == wanted
    assert s3.get_object_acl(Bucket=bucket, Key="k")["Grants"] == wanted
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x", "policies say what its user may do"


def test_a_bucket_without_acls_takes_its_owners_full_control_only(server: ServerProcess, s3: Any, bucket: str) -> None:
    owner = s3.get_bucket_acl(Bucket=bucket)["Owner"]
    for permission, code in (("FULL_CONTROL", ""), ("READ", "AccessControlListNotSupported")):
        grants = [{"Grantee": {"Type": "CanonicalUser", "ID": owner["ID"]}, "Permission": permission}]
        try:
            s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy={"Owner": owner, "Grants": grants})
            found = ""
        except s3.exceptions.ClientError as error:
            found = error.response["Error"]["Code"]
        assert found == code, permission
