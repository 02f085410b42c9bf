"""Servers to measure, started over fresh directories and stopped at the end. What is not installed is left out
(`make peers` installs them). Each says when it acknowledges a write: what does not sync is not to be compared with what
does."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ACCESS, SECRET = "benchmark", "benchmark-secret"
NAMESPACE = "s4-bench"


@dataclass
class Peer:
    """A running server. `access` and `secret` are its keys."""

    name: str
    version: str
    endpoint: str
    processes: list[subprocess.Popen[bytes]]
    access: str = ACCESS
    secret: str = SECRET
    settings: str = ""
    beside: tuple[str, ...] = ()  # words that run a program where the endpoint is

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(60)
        if self.beside:
            subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until something answers HTTP there."""
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(f"the server for {url} ended with {process.returncode}") from None
            time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"nothing answers at {url}")


def find(name: str) -> str | None:
    local = Path(".tools").absolute() / name
    return os.environ.get(f"S4_BENCH_{name.upper()}") or (str(local) if local.exists() else None) or shutil.which(name)


def said(*command: str, pattern: str = r"(\S+)") -> str:
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    match = re.search(pattern, text)
    return match[1] if match else "unknown"


def drives(directory: Path, count: int) -> list[str]:
    """Directories for a server of so many drives."""
    return [str(directory / f"d{number}") for number in range(1, count + 1)] if count > 1 else [str(directory)]


def _s4(*words: str, out: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "S4_ROOT_ACCESS_KEY": ACCESS, "S4_ROOT_SECRET_KEY": SECRET}
    command = [sys.executable, "-m", "s4.cli", *words]
    return subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.DEVNULL)


def start_s4(directory: Path, *options: str, count: int = 1, port: int = 9100) -> Peer:
    listen = ("--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{port + 1}")
    process = _s4("server", *drives(directory, count), *listen, "--log-format", "json", *options)
    wait_for(f"http://127.0.0.1:{port}/readyz", process)
    return Peer(
        "S4",
        said(sys.executable, "-m", "s4.cli", "--version", pattern=r"s4 (\S+)"),
        f"http://127.0.0.1:{port}",
        [process],
        settings=" ".join([f"{count} drives, durability sync", *options]),
    )


def start_cluster(directory: Path, nodes: int, *, partitions: int = 32, erasure: str = "4+2", port: int = 9100) -> Peer:
    """Nodes with an etcd (`s4 dev`), asked through the first node, with its gateway."""
    numbers = ("--nodes", str(nodes), "--partitions", str(partitions), "--erasure", erasure)
    process = _s4("dev", str(directory), *numbers, "--listen", f"127.0.0.1:{port}", out=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if b'"ready"' in line:
            break
    else:
        raise RuntimeError(f"the cluster did not start; see the logs in {directory}")
    version = said(sys.executable, "-m", "s4.cli", "--version", pattern=r"s4 (\S+)")
    return Peer(
        "S4",
        version,
        f"http://127.0.0.1:{port}",
        [process],
        settings=f"cluster of {nodes} nodes, {erasure}, 3 copies of metadata, {partitions} partitions, etcd, TLS between nodes, through one node",
    )


def start_minio(directory: Path, count: int = 1) -> Peer | None:
    binary = find("minio")
    if binary is None:
        return None
    process = subprocess.Popen(
        [
            binary,
            "server",
            *drives(directory, count),
            "--address",
            "127.0.0.1:9200",
            "--console-address",
            "127.0.0.1:9201",
        ],
        env={
            **os.environ,
            "MINIO_ROOT_USER": ACCESS,
            "MINIO_ROOT_PASSWORD": SECRET,
            **({"MINIO_STORAGE_CLASS_STANDARD": "EC:2", "MINIO_CI_CD": "1"} if count > 1 else {}),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for("http://127.0.0.1:9200/minio/health/ready", process)
    return Peer(
        "MinIO",
        _module_version(binary) or said(binary, "--version", pattern=r"version (\S+)"),
        "http://127.0.0.1:9200",
        [process],
        settings=f"{count} drives" + (", EC 4+2" if count == 6 else "") + ", synced before it answers",
    )


def start_minio_nodes(directory: Path, count: int) -> Peer | None:
    """So many processes with a drive each, asked through the first. They have a port each of one address in a network
    namespace: in a container MinIO takes no loopback address for a cluster, and nowhere two addresses of one machine.
    What it sends between them is not encrypted."""
    binary = find("minio")
    if binary is None or os.geteuid() or shutil.which("ip") is None:
        return None
    subprocess.run(["ip", "netns", "delete", NAMESPACE], check=False, stderr=subprocess.DEVNULL)  # of a run cut short
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    subprocess.run(["ip", "-netns", NAMESPACE, "link", "set", "lo", "up"], check=True)
    host, ports = "10.97.0.1", range(9200, 9200 + count)
    subprocess.run(["ip", "-netns", NAMESPACE, "address", "add", f"{host}/32", "dev", "lo"], check=True)
    beside = ("ip", "netns", "exec", NAMESPACE)
    pool = [f"http://{host}:{port}{directory}/d{number}" for number, port in enumerate(ports, 1)]
    environment = {**os.environ, "MINIO_ROOT_USER": ACCESS, "MINIO_ROOT_PASSWORD": SECRET, "MINIO_CI_CD": "1"}
    environment["MINIO_STORAGE_CLASS_STANDARD"] = "EC:2"
    processes = [
        subprocess.Popen(
            [
                *beside,
                binary,
                "server",
                "--address",
                f"{host}:{port}",
                "--console-address",
                f"{host}:{port + 100}",
                *pool,
            ],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for port in ports
    ]
    endpoint = f"http://{host}:{ports[0]}"
    peer = Peer(
        "MinIO",
        _module_version(binary) or said(binary, "--version", pattern=r"version (\S+)"),
        endpoint,
        processes,
        settings=f"{count} processes of a drive each, EC {count - 2}+2, synced before it answers, no TLS between them, "
        "through one of them",
        beside=beside,
    )
    asked = [*beside, sys.executable, "-c", f"from bench.peers import answers; answers({endpoint!r})"]
    try:
        subprocess.run(asked, check=True, cwd=Path(__file__).parents[1])
    except BaseException:
        peer.stop()
        raise
    return peer


def answers(endpoint: str) -> None:
    """Until MinIO says that it can take requests."""
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{endpoint}/minio/health/cluster", timeout=5)
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"MinIO does not become ready at {endpoint}")


def start_seaweedfs(directory: Path) -> Peer | None:
    """One process with all of its parts. It syncs nothing before it answers, unless its filer is told so for a path."""
    binary = find("weed")
    if binary is None:
        return None
    directory.mkdir(parents=True, exist_ok=True)
    identity = {
        "name": "bench",
        "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = ["-master.port=9501", "-volume.port=9502", "-filer.port=9503", "-s3", "-s3.port=9500"]
    ports += ["-s3.port.lance=0", "-s3.port.iceberg=0"]  # the first would be S4's admin port
    here = ("-ip=127.0.0.1", f"-dir={directory}", f"-s3.config={directory}/s3.json", "-master.volumeSizeLimitMB=1024")
    process = subprocess.Popen(
        [binary, "server", *here, *ports], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory
    )
    wait_for("http://127.0.0.1:9500/status", process)
    synced = "fs.configure -locationPrefix=/buckets/ -fsync -apply\n"
    done = subprocess.run(
        [binary, "shell", "-master=127.0.0.1:9501"], input=synced, capture_output=True, text=True, check=False
    )
    is_synced = re.search(r'"fsync":\s+true', done.stdout) is not None
    return Peer(
        "SeaweedFS",
        said(binary, "version", pattern=r"(\d+\.\d+)"),
        "http://127.0.0.1:9500",
        [process],
        settings="1 process, 1 copy, leveldb filer without a sync; "
        + ("volumes synced before it answers" if is_synced else "nothing is synced before it answers"),
    )


def _module_version(binary: str) -> str:
    """A program that `go install` made names its version in its build information only."""
    found = said("go", "version", "-m", binary, pattern=r"mod\s+\S+\s+(\S+)") if shutil.which("go") else "unknown"
    return "" if found == "unknown" else found


def start_garage(directory: Path) -> Peer | None:
    binary = find("garage")
    if binary is None:
        return None
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "garage.toml"
    config.write_text(
        f'metadata_dir = "{directory}/meta"\ndata_dir = "{directory}/data"\ndb_engine = "lmdb"\nreplication_factor = 1\n'
        f'metadata_fsync = true\ndata_fsync = true\nrpc_bind_addr = "127.0.0.1:9301"\nrpc_secret = "{secrets.token_hex(32)}"\n'
        '[s3_api]\ns3_region = "us-east-1"\napi_bind_addr = "127.0.0.1:9300"\n'
    )

    def admin(*command: str) -> str:
        return subprocess.run([binary, "-c", str(config), *command], capture_output=True, text=True, check=True).stdout

    process = subprocess.Popen(
        [binary, "-c", str(config), "server"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for("http://127.0.0.1:9300/", process)
    node = admin("node", "id", "-q").split("@", maxsplit=1)[0]
    admin("layout", "assign", "-z", "bench", "-c", "50G", node.strip())
    admin("layout", "apply", "--version", "1")
    key = "GK" + secrets.token_hex(12)
    secret = secrets.token_hex(32)
    admin("key", "import", "--yes", key, secret)
    admin("bucket", "create", "s3load")
    admin("bucket", "allow", "--read", "--write", "--owner", "s3load", "--key", key)
    return Peer(
        "Garage",
        said(binary, "--version", pattern=r"(v?\d\S+)"),
        "http://127.0.0.1:9300",
        [process],
        key,
        secret,
        "1 node, 1 copy, lmdb, metadata_fsync and data_fsync",
    )
