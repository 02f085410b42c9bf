"""Buckets shown as websites: what a visitor gets, and what it may not."""

from __future__ import annotations

import http.client
from typing import Any
from urllib.parse import urlsplit

import pytest

from access import where
from access.test_buckets import put_policy, statement
from raw import Answer

server, s3, bucket = where.server, where.s3, where.bucket


def visit(server: Any, bucket: str, path: str, method: str = "GET", **headers: str) -> Answer:
    address = urlsplit(server.endpoint)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request(method, path, headers={"Host": f"{bucket}.{where.WEBSITES}:{address.port}", **headers})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@pytest.fixture
def site(s3: Any, bucket: str) -> str:
    """A public bucket with pages, which everybody may read and list."""
    s3.delete_public_access_block(Bucket=bucket)
    put_policy(
        s3, bucket, statement(bucket, "s3:GetObject", who="*"), statement(bucket, "s3:ListBucket", who="*", resource="")
    )
    for key, text in {
        "index.html": "home",
        "docs/index.html": "the docs",
        "a b ä.txt": "named",
        "error.html": "<h1>not here</h1>",
        "big": "x" * 3_000_000,
    }.items():
        s3.put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType="text/html")
    configure(s3, bucket)
    return bucket


def configure(s3: Any, bucket: str, rules: list[dict[str, Any]] | None = None, **more: Any) -> None:
    rest = {"RoutingRules": rules} if rules else {}
    s3.put_bucket_website(
        Bucket=bucket,
        WebsiteConfiguration={
            "IndexDocument": {"Suffix": "index.html"},
            "ErrorDocument": {"Key": "error.html"},
            **rest,
            **more,
        },
    )


def test_pages_are_shown(server: Any, s3: Any, site: str) -> None:
    for path, text in {
        "/": b"home",
        "/docs/": b"the docs",
        "/index.html?versionId=x&acl": b"home",
        "/a%20b%20%C3%A4.txt": b"named",
        "/big": b"x" * 3_000_000,
    }.items():
        answer = visit(server, site, path)
        assert (answer.status, answer.body) == (200, text), path
        assert answer.headers["content-type"] == "text/html"
    assert visit(server, site, "/big", Range="bytes=1-3").body == b"xxx"
    head = visit(server, site, "/big", "HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, "3000000", b"")
    assert visit(server, site, "/", **{"If-None-Match": head.headers["etag"]}).status == 200
    same = s3.head_object(Bucket=site, Key="index.html")["ETag"]
    assert visit(server, site, "/", **{"If-None-Match": same}).status == 304


def test_folders_have_a_slash(server: Any, site: str) -> None:
    answer = visit(server, site, "/docs")
    assert answer.status == 302
    location = urlsplit(answer.headers["location"])
    assert (location.path, location.hostname) == ("/docs/", f"{site}.{where.WEBSITES}")


def test_what_is_not_there_shows_the_error_document(server: Any, s3: Any, site: str) -> None:
    answer = visit(server, site, "/none")
    assert (answer.status, answer.body, answer.headers["x-amz-error-code"]) == (404, b"<h1>not here</h1>", "NoSuchKey")
    assert visit(server, site, "/none", "HEAD").body == b""
    s3.put_bucket_website(Bucket=site, WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}})
    plain = visit(server, site, "/<script>")
    assert (plain.status, plain.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert b"<li>Code: NoSuchKey</li>" in plain.body
    assert b"<script>" not in plain.body
    assert visit(server, site, "/", "POST").status == visit(server, site, "/index.html", "DELETE").status == 405


def test_a_visitor_sees_what_everybody_may(server: Any, s3: Any, site: str) -> None:
    put_policy(
        s3,
        site,
        statement(site, "s3:GetObject", who="*", resource="/index.html"),
        statement(site, "s3:GetObject", who="*", resource="/error.html"),
    )
    assert visit(server, site, "/").body == b"home"
    assert visit(server, site, "/big").status == visit(server, site, "/none").status == 403
    assert visit(server, site, "/big").body == visit(server, site, "/none").body == b"<h1>not here</h1>"
    assert visit(server, site, "/docs").status == 403, "the folder's index is not to be seen"
    s3.put_public_access_block(Bucket=site, PublicAccessBlockConfiguration={"RestrictPublicBuckets": True})
    answer = visit(server, site, "/")
    assert answer.status == 403
    assert b"<li>Code: AccessDenied</li>" in answer.body


def test_no_website_looks_like_no_bucket(server: Any, s3: Any, site: str) -> None:
    s3.delete_bucket_website(Bucket=site)
    gone, never = visit(server, site, "/"), visit(server, site + "-none", "/")
    assert gone.status == never.status == 404
    assert b"NoSuchWebsiteConfiguration" in gone.body
    assert gone.body.partition(b"<li>BucketName")[0] == never.body.partition(b"<li>BucketName")[0]


def test_rules_send_visitors_elsewhere(server: Any, s3: Any, site: str) -> None:
    configure(
        s3,
        site,
        [
            {"Condition": {"KeyPrefixEquals": "old/"}, "Redirect": {"ReplaceKeyPrefixWith": "new/"}},
            {
                "Condition": {"KeyPrefixEquals": "img/", "HttpErrorCodeReturnedEquals": "404"},
                "Redirect": {"HostName": "cdn.example.org", "Protocol": "https", "HttpRedirectCode": "307"},
            },
            {
                "Condition": {"HttpErrorCodeReturnedEquals": "404"},
                "Redirect": {"ReplaceKeyWith": "index.html", "HttpRedirectCode": "302"},
            },
        ],
    )
    s3.put_object(Bucket=site, Key="img/there", Body=b"picture")

    def sent(path: str) -> tuple[int, str]:
        answer = visit(server, site, path)
        return answer.status, answer.headers.get("location", "")

    status, location = sent("/old/a%20b")
    assert (status, urlsplit(location).path, urlsplit(location).scheme) == (301, "/new/a%20b", "http")
    assert sent("/img/none") == (307, "https://cdn.example.org/img/none")
    assert sent("/img/there") == (200, "")
    status, location = sent("/none")
    assert (status, urlsplit(location).path) == (302, "/index.html")
    rules = s3.get_bucket_website(Bucket=site)["RoutingRules"]
    assert rules[1] == {
        "Condition": {"KeyPrefixEquals": "img/", "HttpErrorCodeReturnedEquals": "404"},
        "Redirect": {"HostName": "cdn.example.org", "Protocol": "https", "HttpRedirectCode": "307"},
    }
    s3.put_bucket_website(
        Bucket=site,
        WebsiteConfiguration={"RedirectAllRequestsTo": {"HostName": "www.example.org", "Protocol": "https"}},
    )
    assert s3.get_bucket_website(Bucket=site)["RedirectAllRequestsTo"] == {
        "HostName": "www.example.org",
        "Protocol": "https",
    }
    assert sent("/docs/x") == (301, "https://www.example.org/docs/x")


def test_a_rule_may_take_a_prefix_away_and_redirect_by_any_code_of_s3(server: Any, s3: Any, site: str) -> None:
    codes = (301, 302, 303, 304, 305, 307, 308, 310, 399)
    configure(
        s3,
        site,
        [
            {"Condition": {"KeyPrefixEquals": "old/"}, "Redirect": {"ReplaceKeyPrefixWith": ""}},
            {"Condition": {"KeyPrefixEquals": "root/"}, "Redirect": {"ReplaceKeyWith": ""}},
            *(
                {
                    "Condition": {"KeyPrefixEquals": f"by-{code}/"},
                    "Redirect": {"HostName": "h", "HttpRedirectCode": str(code)},
                }
                for code in codes
            ),
        ],
    )
    kept = s3.get_bucket_website(Bucket=site)["RoutingRules"]
    assert [one["Redirect"] for one in kept[:2]] == [{"ReplaceKeyPrefixWith": ""}, {"ReplaceKeyWith": ""}]
    assert urlsplit(visit(server, site, "/old/docs/x").headers["location"]).path == "/docs/x"
    assert urlsplit(visit(server, site, "/root/x").headers["location"]).path == "/"
    for code in codes:
        answer = visit(server, site, f"/by-{code}/x")
        assert (answer.status, answer.headers["location"]) == (code, f"http://h/by-{code}/x")


def test_an_object_sends_its_visitors_elsewhere(server: Any, s3: Any, site: str) -> None:
    s3.put_object(Bucket=site, Key="moved", Body=b"x", WebsiteRedirectLocation="/docs/")
    assert s3.head_object(Bucket=site, Key="moved")["WebsiteRedirectLocation"] == "/docs/"
    answer = visit(server, site, "/moved")
    assert (answer.status, answer.headers["location"], answer.body) == (301, "/docs/", b"")
    s3.copy_object(Bucket=site, Key="copy", CopySource=f"{site}/moved")
    assert visit(server, site, "/copy").body == b"x", "where visitors are sent is of the source alone"
    s3.copy_object(Bucket=site, Key="moved", CopySource=f"{site}/moved", WebsiteRedirectLocation="https://example.org/")
    assert visit(server, site, "/moved").headers["location"] == "https://example.org/"


def test_the_same_port_still_speaks_s3(server: Any, s3: Any, site: str) -> None:
    assert s3.get_object(Bucket=site, Key="index.html")["Body"].read() == b"home"
    s3.put_bucket_cors(
        Bucket=site,
        CORSConfiguration={"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://example.org"]}]},
    )
    assert (
        visit(server, site, "/", Origin="https://example.org").headers["access-control-allow-origin"]
        == "https://example.org"
    )
