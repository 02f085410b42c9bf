"""What `make run` lacks it installs as root, or names: nobody is left with the errors of a package manager that they
may not use. A release that cannot be made whole says so by its exit status."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("who", ["somebody", "root"])
def test_packages_are_installed_or_named(tmp_path: Path, who: str) -> None:
    programs = {"id": f"echo {0 if who == 'root' else 1000}", "apt-get": 'echo "apt-get $*" >> "$SAID"'}
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    said = tmp_path / "said"
    said.touch()
    done = subprocess.run(
        [ROOT / "deploy" / "packages", "it is for this", "one", "another"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SAID": str(said)},
    )
    if who == "root":
        assert (done.returncode, done.stderr) == (0, "it is for this: installing one another\n")
        assert said.read_text().splitlines() == [
            "apt-get update -qq",
            "apt-get install -y -qq --no-install-recommends one another",
        ]
    else:
        assert (done.returncode, done.stderr) == (
            1,
            "it is for this. As root, on Debian:\n    apt-get install one another\n",
        )
        assert said.read_text() == ""


def test_setting_up_asks_for_packages_there_alone() -> None:
    for name in ("Makefile", "deploy/python"):
        text = (ROOT / name).read_text()
        assert "deploy/packages" in text or "/packages" in text
        assert "apt-get install" not in text.replace(
            "apt-get update -qq && apt-get install -y -qq --no-install-recommends $(E2E_PACKAGES)", ""
        ), name


def test_a_release_without_its_wheel_is_none(tmp_path: Path) -> None:
    programs = {"git": "[ $1 = status ] || echo 1", "uv": "echo no network >&2; exit 2"}
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [ROOT / "deploy" / "release", tmp_path / "uv", tmp_path / "dist"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    assert (done.returncode, done.stderr) == (2, "no network\n")
