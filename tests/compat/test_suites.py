"""The suites that clients test S3 with, as their modules have them: minio-go's. Its counts are printed, and no test fails that passed before:
`suites.tsv` names those that do not pass, each with the reason, and one that passes now leaves it."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from compat.made import made
from process import ACCESS, SECRET, ServerProcess

LONGEST_S = 1500


def known(suite: str) -> set[str]:
    rows = [line.split("\t") for line in (Path(__file__).parent / "suites.tsv").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[0] == suite}


def judge(suite: str, passed: set[str], failed: set[str], skipped: set[str]) -> None:
    failed -= skipped
    print(f"{suite}: {len(passed - failed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    print("\n".join(f"  failed: {name}" for name in sorted(failed)))
    assert passed, "the suite ran nothing"
    assert sorted(failed - known(suite)) == [], "these passed before"
    assert sorted(known(suite) & (passed - failed)) == [], "these pass now: take them out of suites.tsv"


def test_minio_go_suite(own_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    functional = made("minio-go-suite") / "functional"
    (tmp_path / "kms").write_text(f"first:{base64.b64encode(bytes(32)).decode()}\n")
    server = own_server("--new-buckets", "open", "--kms", str(tmp_path / "kms"))
    own = {"SERVER_ENDPOINT": urlsplit(server.endpoint).netloc, "ACCESS_KEY": ACCESS, "SECRET_KEY": SECRET, "ENABLE_HTTPS": "0", "MINT_MODE": "full", "RUN_ON_FAIL": "1"}
    done = subprocess.run([functional], capture_output=True, text=True, timeout=LONGEST_S, check=False, env={**os.environ, **own}, cwd=tmp_path)
    (tmp_path / "said.log").write_text(done.stdout + done.stderr)
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    names: dict[str, set[str]] = {"PASS": set(), "FAIL": set(), "NA": set()}
    for line in said:
        names[line["status"]].add(re.sub(r"^minio-go: ", "", line["name"]))
    judge("minio-go", names["PASS"], names["FAIL"], names["NA"] - names["FAIL"])
    assert done.returncode == 0, f"the suite ended early: {done.stderr[-2000:]}"
