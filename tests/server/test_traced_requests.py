"""The id that a client saw finds a line of the log that says who asked for what and why it was refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from process import ServerProcess, make_client, wait_until
from s4.http.access_log import LINES, AccessLog


@pytest.fixture(scope="module", params=["0", "2"], ids=["one process", "workers"])
def traced(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    server = ServerProcess(
        tmp_path_factory.mktemp("traced") / "data",
        "--reserve",
        "64MiB",
        "--log-format",
        "json",
        "--workers",
        request.param,
    ).start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def s3(traced: ServerProcess) -> Iterator[Any]:
    client = make_client(traced.endpoint)
    yield client
    client.close()


def lines(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]


def line_of(server: ServerProcess, request_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        return next(
            (one for one in lines(server) if one.get("request_id") == request_id and one["event"] == "request"), None
        )

    found: dict[str, Any] = wait_until(look, "the request's line")
    return found


def refused(call: Any, **arguments: Any) -> str:
    """The id that the client saw."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"])


def test_a_refused_request_is_found_by_its_id(traced: ServerProcess, s3: Any) -> None:
    s3.create_bucket(Bucket="traced")
    statement = {
        "Sid": "NoCats",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::traced/cat*",
    }
    s3.put_bucket_policy(Bucket="traced", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    made = json.loads(traced.admin_cli("--json", "user", "add", "ana", "--grant", "Reader:traced").stdout)
    ana = make_client(traced.endpoint, made["access_key"], made["secret_key"])
    try:
        denied = line_of(traced, refused(ana.get_object, Bucket="traced", Key="cat"))
        assert (denied["user"], denied["operation"], denied["status"], denied["access_key"]) == (
            "ana",
            "GetObject",
            403,
            made["access_key"],
        )
        assert (
            denied["why"]
            == "s3:GetObject on arn:aws:s3:::traced/cat: denied by statement 'NoCats' of the bucket's policy"
        )
        more = line_of(traced, refused(ana.put_object, Bucket="traced", Key="dog", Body=b""))
        assert (
            more["why"]
            == "s3:PutObject on arn:aws:s3:::traced/dog: no policy of ana, nor the bucket's policy or an ACL, allows it"
        )
    finally:
        ana.close()
    wrong = make_client(traced.endpoint, made["access_key"], "not the secret")
    try:
        forged = line_of(traced, refused(wrong.list_objects_v2, Bucket="traced"))
        assert forged["code"] == "SignatureDoesNotMatch"
    finally:
        wrong.close()
    missing = line_of(traced, refused(s3.get_object, Bucket="traced", Key="none"))
    assert (missing["code"], missing["path"]) == ("NoSuchKey", "/traced/none")


def test_what_is_logged_changes_while_the_server_runs(traced: ServerProcess, s3: Any) -> None:
    def asked() -> str:
        return str(s3.list_buckets()["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"])

    def told(request_id: str) -> bool:
        return any(one.get("request_id") == request_id for one in lines(traced))

    assert not told(asked())
    assert "requests: all" in traced.admin_cli("log", "--access", "all").stdout
    wait_until(lambda: told(asked()), "all requests have lines")
    traced.admin_cli("log", "--access", "refused")
    wait_until(lambda: not told(asked()), "only refused ones have")
    done = traced.admin_cli("log", check=False)
    assert (done.returncode, "say what to log" in done.stderr) == (1, True)


def test_background_work_is_shown(traced: ServerProcess) -> None:
    text = traced.admin_cli("jobs").stdout
    assert re.search(r"^scrub +600 s +\d+ ", text, re.M), text
    found = {one["name"]: one for one in json.loads(traced.admin_cli("--json", "jobs").stdout)["jobs"]}
    assert {"heal", "lifecycle", "audit of orphans", "compaction"} <= set(found)
    assert not any(one["failures_in_a_row"] for one in found.values()), found


def test_a_flood_of_refusals_has_a_bounded_number_of_lines_and_a_count() -> None:
    now = [100.0]
    told = AccessLog(clock=lambda: now[0])
    http: Any = SimpleNamespace(method="GET", raw_path="/b/k?x=1", remote="192.0.2.1")
    with capture_logs() as written:
        for number in range(10 * LINES):
            told.write(http, None, f"{number}", 404, "NoSuchKey")
        assert len(written) == LINES
        told.write(http, None, "failed", 503, "SlowDown")
        assert written[-1]["request_id"] == "failed", "failures are not hidden by what was refused"
        now[0] += 1.0
        told.write(http, None, "next", 404, "NoSuchKey")
    assert [one["count"] for one in written if "count" in one] == [9 * LINES]
    assert written[-1]["request_id"] == "next"
    assert written[-1]["path"] == "/b/k?x", "no values of a query: signatures are there"
    assert not told.wants(200)
    assert not told.wants(304)
