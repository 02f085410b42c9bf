"""The suites that minio-go and s5cmd test S3 with, as their modules have them. Their counts are printed, and no test
fails that passed before: `suites.tsv` names those that do not pass, each with the reason, and one that passes now
leaves it."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import kept
from compat.made import made
from process import ACCESS, REGION, SECRET, ServerProcess

LONGEST_S = 6000  # for what hangs
pytestmark = pytest.mark.timeout(2 * LONGEST_S)


def known(suite: str) -> dict[str, str]:
    """The tests that do not pass, each with its reason; `either:` begins that of one that sometimes does."""
    rows = [line.split("\t") for line in (Path(__file__).parent / "suites.tsv").read_text().splitlines()[1:]]
    return {row[1]: row[2] for row in rows if row[0] == suite}


def judge(suite: str, passed: set[str], failed: set[str], skipped: set[str]) -> None:
    failed -= skipped
    print(f"{suite}: {len(passed - failed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    print("\n".join(f"  failed: {name}" for name in sorted(failed)))
    assert passed, "the suite ran nothing"
    listed = known(suite)
    assert sorted(failed - listed.keys()) == [], "these passed before"
    now = [name for name in listed if name in passed - failed and not listed[name].startswith("either:")]
    assert now == [], "these pass now: take them out of suites.tsv"


def test_minio_go_suite(own_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    functional = made("minio-go-suite") / "functional"
    (tmp_path / "kms").write_text(f"first:{base64.b64encode(bytes(32)).decode()}\n")
    server = own_server("--new-buckets", "open", "--kms", str(tmp_path / "kms"), "--signature-v2", "all")
    own = {
        "SERVER_ENDPOINT": urlsplit(server.endpoint).netloc,
        "ACCESS_KEY": ACCESS,
        "SECRET_KEY": SECRET,
        "ENABLE_HTTPS": "0",
        "MINT_MODE": "full",
        "RUN_ON_FAIL": "1",
    }
    done = kept.run([functional], limit_s=LONGEST_S, env={**os.environ, **own}, cwd=tmp_path)
    (tmp_path / "said.log").write_text(done.stdout + done.stderr)
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    names: dict[str, set[str]] = {"PASS": set(), "FAIL": set(), "NA": set()}
    for line in said:
        names[line["status"]].add(re.sub(r"^minio-go: ", "", line["name"]))
    judge("minio-go", names["PASS"], names["FAIL"], names["NA"] - names["FAIL"])
    assert done.returncode == 0, f"the suite ended early: {done.stderr[-2000:]}"


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
    }
    command = [suite / "e2e.test", "-test.v", "-test.parallel", "4", "-test.timeout", f"{LONGEST_S}s"]
    done = kept.run(command, limit_s=LONGEST_S, env={**os.environ, **own}, cwd=suite / "source" / "e2e")
    (tmp_path / "said.log").write_text(done.stdout + done.stderr)
    found = re.findall(r"^--- (PASS|FAIL|SKIP): (\S+)", done.stdout, re.MULTILINE)
    passed, failed, skipped = ({name for how, name in found if how == wanted} for wanted in ("PASS", "FAIL", "SKIP"))
    judge("s5cmd", passed, failed, skipped)
