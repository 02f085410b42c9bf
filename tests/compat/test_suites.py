"""The suites that minio-go and s5cmd test S3 with, as their modules have them. Their counts are printed, and no test
fails that passed before: `suites.tsv` names those that do not pass, each with the reason, and one that passes now
leaves it. minio-go's is run on MinIO too, beside which nothing may be worse."""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

import kept
from addresses import free_ports, own_address
from compat.made import made
from process import ACCESS, REGION, SECRET, ServerProcess, wait_until
from server.test_running import make_certificate

LONGEST_S = 6000  # for what hangs
KEY = base64.b64encode(bytes(32)).decode()
OWN = "MinIO's own: "
RESULT = {True: "passed", False: "failed"}
pytestmark = pytest.mark.timeout(2 * LONGEST_S)


def known(suite: str) -> dict[str, str]:
    """The tests that do not pass, each with its reason; `either:` begins that of one that sometimes does."""
    rows = [line.split("\t") for line in (Path(__file__).parent / "suites.tsv").read_text().splitlines()[1:]]
    return {row[1]: row[2] for row in rows if row[0] == suite}


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5, context=ssl._create_unverified_context()) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def judge(suite: str, passed: set[str], failed: set[str], skipped: set[str]) -> None:
    failed -= skipped
    print(f"{suite}: {len(passed - failed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    print("\n".join(f"  failed: {name}" for name in sorted(failed)))
    assert passed, "the suite ran nothing"
    listed = known(suite)
    assert sorted(failed - listed.keys()) == [], "these passed before"
    now = [name for name in listed if name in passed - failed and not listed[name].startswith("either:")]
    assert now == [], "these pass now: take them out of suites.tsv"


def functional(where: Path, endpoint: str) -> tuple[set[str], set[str], set[str]]:
    """The tests of minio-go that pass at a server, those that fail, and those that have nothing to do there. What the
    suite says is kept in `where`."""
    own = {
        "SERVER_ENDPOINT": urlsplit(endpoint).netloc,
        "ACCESS_KEY": ACCESS,
        "SECRET_KEY": SECRET,
        "ENABLE_HTTPS": "1",  # without it the suite leaves keys of customers out
        "SKIP_CERT_VALIDATION": "1",
        "MINT_MODE": "full",
        "RUN_ON_FAIL": "1",
        "TMPDIR": str(where),
    }
    done = kept.run([made("minio-go-suite") / "functional"], limit_s=LONGEST_S, env={**os.environ, **own}, cwd=where)
    (where / "said.log").write_text(done.stdout + done.stderr)
    names: dict[str, set[str]] = {"PASS": set(), "FAIL": set(), "NA": set()}
    for line in map(json.loads, filter(lambda line: line.startswith("{"), done.stdout.splitlines())):
        names[line["status"]].add(re.sub(r"^minio-go: ", "", line["name"]))
    assert done.returncode == 0, f"the suite ended early: {done.stderr[-2000:]}"
    return names["PASS"] - names["FAIL"], names["FAIL"], names["NA"] - names["FAIL"]


def test_minio_go_suite(own_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    make_certificate(tmp_path, "s4")
    (tmp_path / "kms").write_text(f"first:{KEY}\n")
    files = {
        name: str(tmp_path / file)
        for name, file in (("--certificate", "cert.pem"), ("--key", "key.pem"), ("--kms", "kms"))
    }
    options = [one for pair in files.items() for one in pair]
    server = own_server("--new-buckets", "open", "--signature-v2", "all", *options)
    judge("minio-go", *functional(tmp_path, server.endpoint))


def test_minio_go_suite_of_minio(tmp_path: Path) -> None:
    """What MinIO passes S4 passes, but for what is `MinIO's own`. MinIO has a region too, as S4 has."""
    minio, host = made("minio") / "minio", own_address()
    address = f"{host}:{free_ports(1, host)[0]}"
    own = {
        "MINIO_ROOT_USER": ACCESS,
        "MINIO_ROOT_PASSWORD": SECRET,
        "MINIO_SITE_REGION": REGION,
        "MINIO_KMS_SECRET_KEY": f"first:{KEY}",
        "MINIO_BROWSER": "off",
    }
    make_certificate(tmp_path, "minio")
    (tmp_path / "cert.pem").rename(tmp_path / "public.crt")
    (tmp_path / "key.pem").rename(tmp_path / "private.key")
    command = [minio, "server", tmp_path / "data", "--address", address, "--certs-dir", tmp_path]
    with (
        (tmp_path / "minio.log").open("wb") as log,
        kept.started(command, env={**os.environ, **own}, stdout=log, stderr=log),
    ):
        wait_until(lambda: answers(f"https://{address}/minio/health/ready"), "MinIO is ready")
        passed, failed, skipped = functional(tmp_path, f"https://{address}")
    print(f"MinIO: {len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    known_here = known("minio-go")
    rows = [(name, name in passed, name not in known_here) for name in sorted(failed | (known_here.keys() & passed))]
    print(*(f"  {name}: MinIO {RESULT[theirs]}, S4 {RESULT[ours]}" for name, theirs, ours in rows), sep="\n")
    assert [name for name, theirs, ours in rows if theirs and not ours and not known_here[name].startswith(OWN)] == []


def test_s5cmd_suite(own_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    suite = made("s5cmd-suite")
    server = own_server("--new-buckets", "open")
    own = {
        "S5CMD_ACCESS_KEY_ID": ACCESS,
        "S5CMD_SECRET_ACCESS_KEY": SECRET,
        "S5CMD_REGION": REGION,
        "S5CMD_TEST_ENDPOINT_URL": server.endpoint,
        "S5CMD_IS_VIRTUAL_HOST": "0",
        "S5CMD_I_KNOW_WHAT_IM_DOING": "1",
        "S5CMD_BUILD_BINARY_WITHOUT_RACE_FLAG": "1",
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
        "TMPDIR": str(tmp_path),
    }
    command = [suite / "e2e.test", "-test.v", "-test.parallel", "4", "-test.timeout", f"{LONGEST_S}s"]
    done = kept.run(command, limit_s=LONGEST_S, env={**os.environ, **own}, cwd=suite / "source" / "e2e")
    (tmp_path / "said.log").write_text(done.stdout + done.stderr)
    found = re.findall(r"^--- (PASS|FAIL|SKIP): (\S+)", done.stdout, re.MULTILINE)
    passed, failed, skipped = ({name for how, name in found if how == wanted} for wanted in ("PASS", "FAIL", "SKIP"))
    judge("s5cmd", passed, failed, skipped)
