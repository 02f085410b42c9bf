"""The image's recipe: what comes from elsewhere is named by its hash, and every part says under which licence it is.
e2e shows that it runs."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import yaml

from s4.config.listening import parse_address

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def lines(word: str) -> list[str]:
    return [one.partition(" ")[2] for one in RECIPE.splitlines() if one.startswith(word + " ")]


def test_bases_are_named_by_digest() -> None:
    named = dict(one.split("=", 1) for one in lines("ARG") if "=" in one)
    for one in lines("FROM"):
        name = re.sub(r"\$\{(\w+)\}", lambda found: named[found[1]], one.split(" AS ")[0])
        assert re.search(r"@sha256:[0-9a-f]{64}$", name), name


def test_pip_takes_only_what_has_a_hash() -> None:
    """Or what was built here; and no backend that builds it comes by itself."""
    calls = [shlex.split(one) for run in lines("RUN") for one in run.split("&&") if "bin/pip " in one]
    assert len(calls) == 4
    for call in calls:
        assert "--no-deps" in call
        if "wheel" in call:
            assert "--no-build-isolation" in call
        elif "wheels/*.whl" not in call:
            assert "--require-hashes" in call


def test_what_builds_has_hashes_and_no_choice_of_version() -> None:
    wanted = (ROOT / "deploy" / "build.txt").read_text().replace("\\\n", " ").splitlines()
    assert {"uv", "hatchling"} <= {one.split("==")[0] for one in wanted}
    assert all(re.fullmatch(r"\S+==\S+( ; [^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", one) for one in wanted), (
        "make build-lock"
    )
    recipe = (ROOT / "Makefile").read_text().split("\n.tools/uv/bin/uv:", 1)[1].split("\n\n", 1)[0]
    assert "deploy/build.txt" in recipe, "and so for who has no uv"
    assert re.search(r"pip install [^\n]*--require-hashes", recipe)


def test_what_is_exposed_can_be_reached() -> None:
    """A port on loopback is the container's own, however it is published."""
    given = {name: value for line in lines("ENV") for name, _, value in (one.partition("=") for one in line.split())}
    ports = {
        str(parse_address(given.get(name, default))[1]): parse_address(given.get(name, default))[0]
        for name, default in (("S4_LISTEN", "0.0.0.0:9000"), ("S4_ADMIN_LISTEN", "127.0.0.1:9001"))
    }
    assert set(lines("EXPOSE")[0].split()) == set(ports)
    assert not [host for host in ports.values() if host.startswith("127.")]


def test_what_is_published_says_its_licence() -> None:
    """The text is the standard one, and wheel, chart and image name it alike; the image is built with it (PEP 639)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((ROOT / "charts" / "s4" / "Chart.yaml").read_text())
    assert "Apache License\n                           Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
    assert project["license"] == chart["annotations"]["artifacthub.io/license"] == "Apache-2.0"
    assert f'org.opencontainers.image.licenses="{project["license"]}"' in RECIPE
    for name in ("README.md", *project["license-files"]):
        assert any(name in one.split() for one in lines("COPY"))
        assert f"!{name}" in (ROOT / ".dockerignore").read_text().splitlines()
