"""Tags that lend a bucket (`s4.dev/…`): of all who may tag it its owner adds them, by either API; the operator believes
them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from access import where
from raw import Answer, call

server = where.server
LENT, OTHER = ("s4.dev/adopted-by", "tenant/x"), ("team", "a")
CONTROL = {"x-amz-account-id": "000000000000"}


def _user(server: Any, bucket: str) -> dict[str, str]:
    made = json.loads(server.admin_cli("--json", "user", "add", where.new_name(), "--grant", f"Writer:{bucket}").stdout)
    return {"access": made["access_key"], "secret": made["secret_key"]}


def _xml(root: str, *tags: tuple[str, str]) -> bytes:
    group = "TagSet" if root == "Tagging" else "Tags"
    listed = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in tags)
    return f"<{root}><{group}>{listed}</{group}></{root}>".encode()


def _by_s3(server: Any, bucket: str, user: dict[str, str], *tags: tuple[str, str]) -> Answer:
    return call(server.endpoint, "PUT", f"/{bucket}", query="tagging", body=_xml("Tagging", *tags), **user)


def _by_control(server: Any, bucket: str, user: dict[str, str], *tags: tuple[str, str]) -> Answer:
    path = f"/v20180820/tags/arn:aws:s3:::{bucket}"
    return call(server.endpoint, "POST", path, body=_xml("TagResourceRequest", *tags), headers=CONTROL, **user)


def _held(server: Any, bucket: str) -> str:
    return call(server.endpoint, "GET", f"/{bucket}", query="tagging").body.decode()


@pytest.mark.parametrize("put", [_by_s3, _by_control])
def test_who_may_tag_a_bucket_may_not_lend_it(server: Any, put: Any) -> None:
    """Whoever a bucket was lent to named itself in its tag, and had it for good."""
    bucket = where.new_name()
    owner, writer = _user(server, bucket), _user(server, bucket)
    assert call(server.endpoint, "PUT", f"/{bucket}", **owner).status == 200
    refused = put(server, bucket, writer, LENT)
    assert (refused.status, refused.code) == (403, "AccessDenied")
    assert put(server, bucket, writer, OTHER).status in (200, 204)
    assert put(server, bucket, owner, OTHER, LENT).status in (200, 204)
    assert "tenant/x" in _held(server, bucket)
    assert put(server, bucket, writer, OTHER, (LENT[0], "tenant/x other/y")).code == "AccessDenied"
    assert put(server, bucket, writer, ("team", "b"), LENT).status in (200, 204), "as it was"
    assert _by_s3(server, bucket, writer, OTHER).status in (200, 204), "it ends a loan"
    assert "tenant/x" not in _held(server, bucket)
    assert put(server, bucket, {}, LENT).status in (200, 204)
