"""The steps of docs/cluster.md for a cluster on machines of one's own, followed: each machine a network namespace with
a name, and an etcd that asks for TLS and a login. Real processes, because what failed was between them (six are
started: some seconds of a processor)."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import boto3
import pytest

from cluster.etcd_process import need_etcd, program
from cluster.test_coordinator import ask_for_logins
from faults.network import Network, missing
from process import wait_until
from s4.cluster.etcd import Access
from s4_operator import certificates

GUIDE = Path(__file__).parents[2] / "docs" / "cluster.md"
NODES = ("node-1", "node-2", "node-3")
KEYS = {"S4_ROOT_ACCESS_KEY": "ofmychoice", "S4_ROOT_SECRET_KEY": "of my choice too"}


class Machines:
    """Namespaces that know each other by name. `run` is a command line of the guide in one of them, in the folder
    `here`."""

    def __init__(self, network: Network, here: Path) -> None:
        self.network, self.here, self.started = network, here, list[subprocess.Popen[bytes]]()
        self.text = GUIDE.read_text()

    def _words(self, machine: str, words: tuple[str, ...]) -> list[str]:
        for word in words:
            if word.startswith("--"):
                assert word in self.text, f"docs/cluster.md does not say {word}"
        program_of = [sys.executable, "-m", "s4.cli", *words[1:]] if words[0] == "s4" else list(words)
        return ["ip", "netns", "exec", self.network.namespace[machine], *program_of]

    def run(self, machine: str, *words: str) -> str:
        done = subprocess.run(
            self._words(machine, words),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            cwd=self.here,
            env={**os.environ, **KEYS},
        )
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, 3), f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, machine: str, *words: str) -> None:
        with (self.here / f"{machine}.log").open("ab") as log:
            self.started.append(
                subprocess.Popen(
                    self._words(machine, words), stdout=log, stderr=log, cwd=self.here, env={**os.environ, **KEYS}
                )
            )

    def said(self, machine: str, what: str) -> None:
        wait_until(lambda: what in (self.here / f"{machine}.log").read_text(), f"{machine} says {what}")

    def stop(self) -> None:
        for one in self.started:
            one.terminate()
        for one in self.started:
            one.wait(60)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    need_etcd()
    if why := missing():
        pytest.skip(why)
    with ExitStack() as stack:
        network = stack.enter_context(Network(["etcd-1", *NODES, "gateway-1"]))
        for namespace in network.namespace.values():  # `ip netns exec` shows these as /etc/hosts
            folder = Path("/etc/netns") / namespace
            folder.mkdir(parents=True)
            stack.callback(shutil.rmtree, folder)
            (folder / "hosts").write_text(
                "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in network.address.items())
            )
        made = Machines(network, tmp_path)
        stack.callback(made.stop)
        yield made


def start_etcd(machines: Machines) -> None:
    """With a certificate for its name, and a user for this cluster's keys."""
    authority = certificates.make("etcd's", time.time(), 86_400)
    address = machines.network.address["etcd-1"]
    own = certificates.make("etcd-1", time.time(), 86_400, ["etcd-1", address], authority)
    for name, text in (
        ("etcd-ca.pem", authority.certificate),
        ("etcd.pem", own.certificate),
        ("etcd.key", own.key),
        ("login", "s4:a secret: with a colon\n"),
    ):
        (machines.here / name).write_text(text)
    found, url, peer = program() or "", "https://etcd-1:2379", "http://127.0.0.1:2380"
    with (machines.here / "etcd-1.log").open("ab") as log:
        machines.started.append(
            subprocess.Popen(
                [
                    "ip",
                    "netns",
                    "exec",
                    machines.network.namespace["etcd-1"],
                    found,
                    "--name",
                    "e",
                    "--data-dir",
                    str(machines.here / "etcd"),
                    "--listen-client-urls",
                    f"https://{address}:2379",
                    "--advertise-client-urls",
                    url,
                    "--listen-peer-urls",
                    peer,
                    "--initial-advertise-peer-urls",
                    peer,
                    "--initial-cluster",
                    f"e={peer}",
                    "--cert-file",
                    str(machines.here / "etcd.pem"),
                    "--key-file",
                    str(machines.here / "etcd.key"),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"},
            )
        )
    machines.said("etcd-1", "serving client requests")
    asyncio.run(ask_for_logins(f"{address}:2379", Access(str(machines.here / "etcd-ca.pem")), b"/s4/prod/"))


def test_the_steps_for_machines_of_ones_own(machines: Machines) -> None:
    start_etcd(machines)
    coordinator = (
        "--coordinator",
        "etcd://etcd-1:2379/prod",
        "--etcd-authority",
        "etcd-ca.pem",
        "--etcd-login",
        "login",
    )
    machines.run("node-1", "s4", "admin", "cluster", "certificates", "./trust", *NODES, "gateway-1")
    assert "cluster: " in machines.run("node-1", "s4", "admin", "cluster", "init", *coordinator, "--erasure", "2+1")
    machines.run("node-1", "sh", "-c", "(umask 077; head -c 32 /dev/urandom | base64 > master.key)")
    trust = {
        name: (
            "--authority",
            "trust/ca.pem",
            "--peer-certificate",
            f"trust/{name}.pem",
            "--peer-key",
            f"trust/{name}.key",
            "--master-key",
            "master.key",
        )
        for name in (*NODES, "gateway-1")
    }
    for name in NODES:
        machines.start(
            name,
            "s4",
            "node",
            f"disk-of-{name}",
            "--name",
            name,
            "--advertise",
            f"{name}:9002",
            *coordinator,
            "--zone",
            name,
            "--admin-listen",
            ":9001",
            "--reserve",
            "64MiB",
            *trust[name],
        )
    for name in NODES:
        machines.said(name, "(standby) serves")
    at = ("s4", "admin", "--endpoint", "node-1:9001", "--authority", "trust/ca.pem", "cluster")
    before = machines.run("node-2", *at, "status")
    assert "`s4 admin cluster add`" in before
    assert len(re.findall(r"^node-\d .* standby ", before, re.MULTILINE)) == 3
    assert machines.run("node-2", *at, "add").startswith("taken in: all that stand by; ")
    assert machines.run("node-2", *at, "freeze", "on").startswith("planned moves wait until")
    assert machines.run("node-2", *at, "freeze", "off").startswith("planned moves go on; ")
    machines.start("gateway-1", "s4", "gateway", *coordinator, *trust["gateway-1"])
    machines.said("gateway-1", "gateway serves")
    wait_until(lambda: re.search(r"^health +ok", machines.run("node-3", *at, "status"), re.MULTILINE), "all is well")
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{machines.network.address['gateway-1']}:9000",
        aws_access_key_id=KEYS["S4_ROOT_ACCESS_KEY"],
        aws_secret_access_key=KEYS["S4_ROOT_SECRET_KEY"],
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="first")
    client.put_object(Bucket="first", Key="k", Body=b"x" * 100_000)
    assert client.get_object(Bucket="first", Key="k")["Body"].read() == b"x" * 100_000
    client.close()
