"""A network that can be cut: each node of a cluster in a namespace of its own, all at one bridge, whose address is
this machine's.

What is cut is lost without a word, as by a switch that dies: no connection is refused or ended by it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.dev import ACCESS, SECRET, DevCluster
from s4.crypto.authority import Authority


def missing() -> str:
    """Why there can be no such network here; "" where there can."""
    if os.getuid() != 0 or not shutil.which("ip") or not shutil.which("iptables"):
        return "namespaces need root, ip and iptables"
    try:
        with Network(["probe"]) as network:
            network.inside("probe", "iptables", "-L", "-n")
    except subprocess.CalledProcessError as error:
        return f"no namespaces here: {error.stderr.strip()}"
    return ""


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)


def free_net(number: int) -> str:
    """Three numbers of an address that no network of this machine has: another run beside this one, or one that was
    killed and has left its bridge. Where to look first is chosen by a number, so that runs differ."""
    done = subprocess.run(["ip", "-o", "-4", "addr"], check=True, capture_output=True, text=True, timeout=60)
    nets = (f"198.{18 + at % 2}.{at // 2 % 250}" for at in range(number, number + 500))
    return next(net for net in nets if f" {net}." not in done.stdout)


class Network:
    """`host` is this machine's address in it, `address` each node's."""

    def __init__(self, names: list[str]) -> None:
        number = os.getpid()
        net = free_net(number)
        self._bridge, self.host = f"s4f{number}", f"{net}.254"
        self.address = {name: f"{net}.{at}" for at, name in enumerate(names, 1)}
        self.namespace = {name: f"s4f{number}-{name}" for name in names}
        self._port = {name: f"s4f{number}p{at}" for at, name in enumerate(names, 1)}

    def __enter__(self) -> Network:
        try:
            run("ip", "link", "add", self._bridge, "type", "bridge")
            run("ip", "addr", "add", f"{self.host}/24", "dev", self._bridge)
            run("ip", "link", "set", self._bridge, "up")
            for name, namespace in self.namespace.items():
                run("ip", "netns", "add", namespace)
                run("ip", "link", "add", self._port[name], "type", "veth", "peer", "name", "eth0", "netns", namespace)
                run("ip", "link", "set", self._port[name], "master", self._bridge, "up")
                run("ip", "-n", namespace, "addr", "add", f"{self.address[name]}/24", "dev", "eth0")
                for device in ("eth0", "lo"):
                    run("ip", "-n", namespace, "link", "set", device, "up")
        except subprocess.CalledProcessError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in self.namespace.values():  # its end of the pair goes with it, and ours with that
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self._bridge], capture_output=True, check=False)

    def inside(self, name: str, *words: str) -> None:
        run("ip", "netns", "exec", self.namespace[name], *words)

    @contextmanager
    def cut(self, name: str, chosen: random.Random) -> Iterator[str]:
        """A node is cut off from all others, from the coordinator and from clients: wholly, or one way."""
        way = chosen.choice(("both ways", "hears nothing", "says nothing"))
        if way == "both ways":
            run("ip", "link", "set", self._port[name], "nomaster")
        else:
            chain = "INPUT" if way == "hears nothing" else "OUTPUT"
            self.inside(name, "iptables", "-A", chain, "-j", "DROP")
        try:
            yield way
        finally:
            if way == "both ways":
                run("ip", "link", "set", self._port[name], "master", self._bridge)
            else:
                self.inside(name, "iptables", "-F")


def in_network(
    network: Network, directory: Path, erasure: str, partitions: int, environment: dict[str, str]
) -> DevCluster:
    """A cluster whose nodes are in it; etcd and all who ask are at its host."""
    members = {
        name: {part: f"{address}:{port}" for part, port in (("s3", 9000), ("admin", 9001), ("peer", 9002))}
        for name, address in network.address.items()
    }
    directory.mkdir()
    authority = Authority(directory / "trust")
    for name in members:
        authority.issue(name)
    plan: dict[str, Any] = {
        "erasure": erasure,
        "partitions": partitions,
        "reserve": "64MiB",
        "etcd": [f"{network.host}:2379", f"{network.host}:2380"],
        "members": members,
        "access_key": ACCESS,
        "secret_key": SECRET,
    }
    (directory / "dev.json").write_text(json.dumps(plan))
    entering = {
        "S4_NAMESPACES": json.dumps(network.namespace),
        "S4_DEV_FORK": "off",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "entering"), os.environ.get("PYTHONPATH", "")]),
    }
    return DevCluster(directory, environment={**environment, **entering})
