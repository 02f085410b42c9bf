"""e2e/cluster/kind against stubs of `kind` and `docker`, which cannot run here: the command lines, and the cluster's
shape."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import yaml

SCRIPT = Path(__file__).parents[2] / "e2e" / "cluster" / "kind"


def run(tmp_path: Path, *words: str) -> list[str]:
    """The calls that the script made, one line each."""
    calls = tmp_path / "calls"
    for name in ("kind", "docker"):
        stub = tmp_path / name
        stub.write_text(
            f'#!/bin/sh\necho "{name} $*" >>{calls}\n'
            f'while [ $# -gt 0 ]; do [ "$1" = --config ] && cp "$2" {tmp_path}/kind.yaml; shift; done\ncase "$(readlink /proc/self/fd/0)" in pipe*) cat >/dev/null;; esac\n'
        )
        stub.chmod(0o755)
    subprocess.run(
        [SCRIPT, *words],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
    )
    return calls.read_text().splitlines()


def test_up(tmp_path: Path) -> None:
    calls = run(tmp_path, "up", f"{tmp_path}/kubeconfig", "6", "localhost/s4", "client:1")
    assert [line.split()[:2] for line in calls] == [
        ["kind", "create"],
        ["docker", "build"],
        ["docker", "build"],
        ["docker", "tag"],
        ["docker", "tag"],
        ["kind", "load"],
    ]
    assert f"--kubeconfig {tmp_path}/kubeconfig" in calls[0]
    assert calls[-1].endswith("localhost/s4:one localhost/s4:two localhost/s4:three client:1")
    assert [one["role"] for one in yaml.safe_load((tmp_path / "kind.yaml").read_text())["nodes"]] == [
        "control-plane"
    ] + ["worker"] * 6


def test_down(tmp_path: Path) -> None:
    assert run(tmp_path, "down") == ["kind delete cluster --name s4-e2e"]
