"""One real cluster for all tests: brought up, S4 installed with Helm, an S4Cluster of four nodes 2+2 made ready.

With S4_E2E_KUBECONFIG the cluster is somebody's, and has the images; else `kind` where Docker runs; else the one that
e2e/cluster/local.py makes of network namespaces. Figures are printed at the end.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from apps import begin_load
from world import (
    BEFORE,
    CACHE,
    CHART,
    CLIENT,
    IMAGE,
    ROOT,
    STATE,
    STORAGE_CLASS,
    VARIANT,
    LocalNodes,
    World,
    have,
    s4cluster,
    storage,
    volume,
)

NODES = 6
VARIED = {
    "dual": {"gateway": {"service": {"ipFamilyPolicy": "RequireDualStack"}}},
    "zones": {"placement": {"failureDomain": "zone"}},
}.get(VARIANT, {})


def uses_kind() -> bool:
    """Whether `kind` can be used: Docker runs here."""
    return (
        have("kind")
        and have("docker")
        and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    )


def build_images(archive: Path) -> None:
    subprocess.run([ROOT / "e2e/cluster/image", CACHE, archive, f"{IMAGE}:one"], check=True)
    subprocess.run([ROOT / "e2e/cluster/client-image", CACHE / "client.tar", CLIENT], check=True)


def build_before(tree: Path, archive: Path) -> None:
    """The tree of 0.7, out of this repository's history, and its image."""
    tree.mkdir()
    packed = subprocess.run(["git", "-C", ROOT, "archive", BEFORE], check=True, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", tree], check=True, input=packed.stdout)
    subprocess.run([tree / "e2e/cluster/image", CACHE, archive, f"{IMAGE}:before"], check=True)


@pytest.fixture(scope="session")
def local() -> LocalNodes:
    """The machines, where they are ours to kill."""
    if os.environ.get("S4_E2E_KUBECONFIG") or uses_kind():
        pytest.skip("nodes are killed only where they are network namespaces of this machine")
    return LocalNodes()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    given = os.environ.get("S4_E2E_KUBECONFIG")
    if given:
        found = World(Path(given))
        install(found)
        yield found
        return
    archive = tmp_path_factory.mktemp("images") / "s4.tar"
    if uses_kind():
        yield from kind(archive)
        return
    nodes = LocalNodes()
    if os.environ.get("S4_E2E_KEEP") and (STATE / "admin.conf").exists():  # left by a run before, to look at one test
        yield World(STATE / "admin.conf")
        return
    build_images(archive)
    tree, before = archive.parent / "before", archive.parent / "before.tar"
    if VARIANT == "upgrade":
        build_before(tree, before)
    nodes.act("down")
    nodes.act("up", NODES)
    try:
        nodes.act("load", archive)
        if VARIANT == "upgrade":
            nodes.act("load", before)
        nodes.act("load", CACHE / "client.tar")
        for tag in ("two", "three"):
            nodes.act("tag", f"{IMAGE}:one", f"{IMAGE}:{tag}")
        found = World(STATE / "admin.conf")
        found.apply(
            STORAGE_CLASS,
            *(volume(node, number) for node in range(1, NODES + 1) for number in (1, 2)),
        )
        if VARIANT == "upgrade":
            upgrade(found, tree)
        else:
            install(found)
        yield found
        print("\n" + "\n".join(f"{name}: {value:.1f}" for name, value in found.figures.items()))
    finally:
        if not os.environ.get("S4_E2E_KEEP"):
            nodes.act("down")


def kind(archive: Path) -> Iterator[World]:
    """A cluster of `kind`; see e2e/cluster/kind for its command lines."""
    script = str(ROOT / "e2e" / "cluster" / "kind")
    kubeconfig = archive.parent / "kubeconfig"
    subprocess.run([script, "up", str(kubeconfig), str(NODES), IMAGE, CLIENT], check=True)
    try:
        found = World(kubeconfig)
        install(found, storage_class="standard")
        yield found
    finally:
        subprocess.run([script, "down"], check=True)


def _secrets(world: World) -> None:
    """What the cluster is told to use: keys, and a receiver of events."""
    world.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "demo-kms", "namespace": "s4"},
            "stringData": {"keys": f"first:{base64.b64encode(bytes(32)).decode()}\n"},
        }
    )
    receivers = json.dumps({"nobody": {"webhook": "http://127.0.0.1:9/"}})
    world.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "demo-receivers", "namespace": "s4"},
            "stringData": {"receivers.yaml": receivers},
        }
    )


def install(world: World, storage_class: str = "local", chart: Path = CHART, tag: str = "one") -> None:
    """S4 of some chart and image."""
    world.install_operator(chart, tag)
    _secrets(world)
    started = time.monotonic()
    world.apply(
        s4cluster(
            "demo",
            {
                "image": f"{IMAGE}:{tag}",
                "nodes": 4,
                "allowedNamespaces": ["app"],
                "storage": storage(storage_class),
                "kms": {"secretName": "demo-kms"},
                "receivers": {"name": "demo-receivers"},
                "failure": {"replaceAfter": "30s"},
                "upgrade": {"progressDeadline": "60s"},
                **VARIED,
            },
        )
    )
    world.wait("Ready by a real write", lambda: world.condition("Ready").get("status") == "True")
    world.figures["seconds to Ready, four nodes 2+2"] = time.monotonic() - started


def upgrade(world: World, tree: Path) -> None:
    """S4 as 0.7 installs it, with data and under load; then its release is upgraded, and its cluster."""
    install(world, chart=tree / "charts/s4", tag="before")
    begin_load(world, "before", "demo")
    started = time.monotonic()
    world.install_operator()
    world.whole(4)
    world.figures["seconds to upgrade the chart of 0.7"] = time.monotonic() - started
    started = time.monotonic()
    world.patch({"image": f"{IMAGE}:one"})
    world.whole(4)
    world.figures["seconds to upgrade four nodes of 0.7"] = time.monotonic() - started
