"""`s4 dev`: a whole cluster as processes on one machine, with a real etcd, for trying things out and for tests.

Everything is below one directory: `dev.json` says which ports and keys it has, so that it goes on as it was when it is
started again. One process starts the others and is their parent; acts of other terminals (`s4 dev DIR kill node-2`)
come to it over a Unix socket (`dev_act` of cli/cluster.py), one JSON line each way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from s4.base.said import SaidError, of_option
from s4.cli.admin_client import AdminClient, AdminError
from s4.cli.cluster import init
from s4.cli.starter import Started, Starter
from s4.cluster import planner
from s4.config.limits import parse_size
from s4.config.listening import parse_address
from s4.crypto import keyring
from s4.crypto.authority import Authority
from s4.erasure.codec import parse_geometry
from s4.node.local import master_key
from s4.storage.files import Files

LIMIT_S = 60.0
WAITING = 64  # nodes and gateways that are waited for at once


class DevError(SaidError):
    """The message is for people."""


def run_dev(arguments: argparse.Namespace) -> int:
    """Raises DevError, InitError, AdminError, OSError."""
    return asyncio.run(_serve(arguments))


def _ports(count: int, host: str) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind((host, 0))
    found: list[int] = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return found


def _plan(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """What the cluster is, kept from its first start on."""
    path = directory / "dev.json"
    if path.exists():
        return _kept(path)
    _check(arguments)
    _etcd_program()
    directory.mkdir(parents=True, exist_ok=True)
    host, _, port = arguments.listen.rpartition(":")
    names = [f"node-{number + 1}" for number in range(arguments.nodes)]
    gateways = [f"gateway-{number + 1}" for number in range(arguments.gateways)]
    inside = host if host.startswith("127.") else "127.0.0.1"  # for all that only this machine asks
    ports = _ports(2 + 3 * len(names) + 2 * len(gateways), inside)
    etcd, ports = ports[:2], ports[2:]
    members = {}
    for number, name in enumerate(names + gateways):
        s3 = int(port) + number if int(port) else ports.pop()
        members[name] = {
            "s3": f"{host}:{s3}",
            "admin": f"{inside}:{ports.pop()}",
            "peer": f"{inside}:{ports.pop() if name in names else 0}",
        }
    trust = directory / "trust"
    authority = Authority(trust)
    for name in members:
        authority.issue(name)
    made = {
        "erasure": arguments.erasure,
        "partitions": arguments.partitions,
        "reserve": arguments.reserve,
        "etcd": [f"{inside}:{port}" for port in etcd],
        "members": members,
        "access_key": os.environ.get("S4_ROOT_ACCESS_KEY") or "S4" + secrets.token_hex(9).upper(),
        "secret_key": os.environ.get("S4_ROOT_SECRET_KEY") or secrets.token_urlsafe(30),
    }
    keys = {name: made[name] for name in ("access_key", "secret_key")}
    Files().replace(directory / "root.json", json.dumps(keys).encode())  # for `s4 admin --dir`
    Files().replace(path, json.dumps(made, indent=1).encode())
    return made


def _kept(path: Path) -> dict[str, Any]:
    """Raises DevError for a file that holds no plan."""
    try:
        kept = json.loads(path.read_text())
        missing = {"erasure", "partitions", "reserve", "etcd", "members", "access_key", "secret_key"} - set(kept)
    except (ValueError, TypeError) as error:
        raise DevError(f"{path} is damaged: {error}") from error
    if missing or not isinstance(kept, dict):
        raise DevError(f"{path} is damaged: it does not say {', '.join(sorted(missing))}")
    return kept


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be before anything is made. Raises DevError, ValueError, PlanError."""
    data, parity = of_option("--erasure", parse_geometry, arguments.erasure)
    if arguments.nodes < data + parity:
        raise DevError(f"--erasure {data}+{parity} needs {data + parity} nodes, and --nodes says {arguments.nodes}")
    if arguments.gateways < 0:
        raise DevError(f"--gateways {arguments.gateways}: give a number from 0 on")
    planner.new("", data, parity, arguments.partitions)
    of_option("--listen", parse_address, arguments.listen)
    of_option("--reserve", parse_size, arguments.reserve)


def _etcd_program() -> str:
    program = os.environ.get("S4_ETCD") or shutil.which("etcd")
    if program is None:
        raise DevError("no etcd; install one (Debian: etcd-server) or name it in S4_ETCD")
    return program


class Dev:
    """The running cluster."""

    def __init__(self, directory: Path, plan: dict[str, Any]) -> None:
        self.directory, self.plan = directory, plan
        self._processes: dict[str, subprocess.Popen[bytes] | Started] = {}
        self._starter = Starter() if os.environ.get("S4_DEV_FORK") != "off" else None
        self._stores: dict[str, str] = {}
        master_key(Files(), [directory / "trust"])
        # until 0.7 ports were kept, all of 127.0.0.1
        self._etcd = [f"127.0.0.1:{place}" if isinstance(place, int) else place for place in plan["etcd"]]
        self.coordinator = f"etcd://{self._etcd[0]}/dev"

    def _log(self, name: str) -> Any:
        return (self.directory / f"{name}.log").open("ab")

    async def start_etcd(self) -> None:
        program = _etcd_program()
        client, peer = (f"http://{place}" for place in self._etcd)
        with self._log("etcd") as log:
            words = (
                *("--name", "dev", "--data-dir", str(self.directory / "etcd"), "--initial-cluster", f"dev={peer}"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            )
            self._processes["etcd"] = subprocess.Popen(  # noqa: ASYNC220, S603 - a moment; the user's own etcd
                [program, *words],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"},
            )
        await self._until(lambda: b'"true"' in _get(f"{client}/health"), "etcd is healthy")

    async def _until(self, condition: Any, what: str) -> Any:
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                value = await asyncio.to_thread(condition)
                if value:
                    return value
            except (OSError, AdminError):
                pass
            if time.monotonic() > deadline:
                raise DevError(f"never: {what}; the logs are in {self.directory}")
            await asyncio.sleep(0.1)

    async def start(self, name: str) -> None:
        """Start a node or a gateway, and wait until it serves."""
        if name in self._processes and self._processes[name].poll() is None:
            self._processes[name].send_signal(signal.SIGCONT)
            return
        self.plan = json.loads((self.directory / "dev.json").read_text())  # somebody may have changed it
        where, trust = self.plan["members"][name], self.directory / "trust"
        kind = (
            [
                "node",
                str(self.directory / name),
                "--name",
                name,
                "--peer-listen",
                where["peer"],
                "--advertise",
                where["peer"],
                "--reserve",
                where.get("reserve", self.plan["reserve"]),
            ]
            if name.startswith("node")
            else ["gateway"]
        )
        with self._log(name) as log:
            process = await asyncio.to_thread(
                self._run,
                [
                    *kind,
                    "--coordinator",
                    self.coordinator,
                    "--listen",
                    where["s3"],
                    "--admin-listen",
                    where["admin"],
                    "--admin-tls",
                    "off",
                    "--authority",
                    str(trust / "ca.pem"),
                    "--master-key",
                    str(trust / keyring.FILE),
                    "--peer-certificate",
                    str(trust / f"{name}.pem"),
                    "--peer-key",
                    str(trust / f"{name}.key"),
                ],
                log,
            )
        self._processes[name] = process
        line = (await asyncio.to_thread(process.stdout.readline)).decode() if process.stdout is not None else ""
        if " serves " not in line:
            raise DevError(f"{name} did not start; see {self.directory / name}.log")
        self._stores[name] = line.split(" store ")[1].split()[0] if " store " in line else ""

    def _run(self, arguments: list[str], log: IO[bytes]) -> subprocess.Popen[bytes] | Started:
        """With S4_DEV_FORK=off by its own command line, for what looks at a process when it begins."""
        keys = {"S4_ROOT_ACCESS_KEY": self.plan["access_key"], "S4_ROOT_SECRET_KEY": self.plan["secret_key"]}
        environment = {**os.environ, **keys}
        if self._starter is not None:
            return self._starter.start(arguments, environment, log)
        return subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "s4.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,
        )

    def describe(self, name: str) -> dict[str, Any]:
        where, process = self.plan["members"][name], self._processes.get(name)
        alive = process is not None and process.poll() is None
        return {
            "node": name,
            "store": self._stores.get(name, ""),
            "s3": f"http://{where['s3']}",
            "admin": f"http://{where['admin']}",
            "peer": where["peer"],
            "pid": process.pid if process is not None and alive else 0,
        }

    def admin(self) -> AdminClient:
        """A client of the first node that runs."""
        for name, process in self._processes.items():
            if name != "etcd" and process.poll() is None:
                where = self.plan["members"][name]["admin"]
                return AdminClient(where, self.plan["access_key"], self.plan["secret_key"], "us-east-1")
        raise DevError("no node runs")

    async def ready(self) -> None:
        """Until every partition is served by a primary under a lease."""
        await self._until(
            lambda: next(self.admin().call("GET", "/status"))["health"] in ("ok", "degraded"),
            "every partition is served",
        )

    async def act(self, act: str, name: str) -> dict[str, Any]:
        if act == "status":
            return {"nodes": [self.describe(one) for one in self.plan["members"]], "coordinator": self.coordinator}
        if name != "etcd" and name not in self.plan["members"]:
            raise DevError(f"there is no {name!r} here; there are {', '.join(self.plan['members'])}, etcd")
        if name == "etcd":
            if act == "start":
                await self.start_etcd()
            else:
                await self._end(name, signal.SIGKILL if act == "kill" else signal.SIGTERM)
            return {"etcd": act}
        if act == "start":
            await self.start(name)
        else:
            await self._end(name, signal.SIGTERM if act == "stop" else signal.SIGKILL)
        if act == "wipe":
            await asyncio.to_thread(shutil.rmtree, self.directory / name, ignore_errors=True)
            await self.start(name)
            await self._until(
                lambda: next(self.admin().call("POST", "/cluster/replace", {"stores": [name]})),
                "the store was replaced",
            )
        return self.describe(name)

    async def _end(self, name: str, how: signal.Signals) -> None:
        process = self._processes.get(name)
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        await asyncio.to_thread(process.wait)
        if process.stdout is not None:
            process.stdout.close()

    async def close(self) -> None:
        names = [name for name in self._processes if name != "etcd"]
        await asyncio.gather(*(self._end(name, signal.SIGTERM) for name in names))
        await self._end("etcd", signal.SIGTERM)
        if self._starter is not None:
            self._starter.close()


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own etcd
        content: bytes = answer.read()
        return content


async def _serve(arguments: argparse.Namespace) -> int:
    directory = Path(arguments.directory).absolute()
    plan = _plan(arguments, directory)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(WAITING))
    dev = Dev(directory, plan)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        new = not (directory / "etcd").exists()
        await dev.start_etcd()
        if new:
            await asyncio.to_thread(init, dev.coordinator, dev.plan["erasure"], str(dev.plan["partitions"]))
        await asyncio.gather(*(dev.start(name) for name in dev.plan["members"]))
        if new:
            await asyncio.to_thread(lambda: next(dev.admin().call("POST", "/cluster/add", {"stores": []})))
        await dev.ready()
        socket_path = directory / "dev.sock"
        socket_path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(lambda reader, writer: _talk(dev, reader, writer), socket_path)
        for name in dev.plan["members"]:
            _say(dev.describe(name))
        _say(
            {
                "ready": True,
                "access_key": dev.plan["access_key"],
                "secret_key": dev.plan["secret_key"],
                "coordinator": dev.coordinator,
            }
        )
        await ended.wait()
        server.close()
        return 0
    finally:
        await dev.close()


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def _talk(dev: Dev, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        act, name = json.loads(await reader.readline())
        answer = await dev.act(act, name)
    except (DevError, AdminError, OSError, ValueError) as error:
        answer = {"error": str(error)}
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()
    writer.close()
