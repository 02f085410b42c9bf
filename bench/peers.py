"""Servers to measure: started on loopback over a fresh directory, stopped at the end. A missing binary is left out."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ACCESS, SECRET = "benchmark", "benchmark-secret"


@dataclass
class Peer:
    """A running server. `access` and `secret` are its keys."""

    name: str
    version: str
    endpoint: str
    process: subprocess.Popen[bytes]
    access: str = ACCESS
    secret: str = SECRET
    settings: str = ""
    options: list[str] = field(default_factory=list)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


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
    raise RuntimeError(f"nothing answers at {url}")


def find(name: str) -> str | None:
    local = Path(".tools") / name
    return os.environ.get(f"S4_BENCH_{name.upper()}") or (str(local) if local.exists() else None) or shutil.which(name)


def said(*command: str, pattern: str = r"(\S+)") -> str:
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    match = re.search(pattern, text)
    return match[1] if match else "unknown"


def drives(directory: Path, count: int) -> list[str]:
    """Directories for a server of so many drives."""
    return [str(directory / f"d{number}") for number in range(1, count + 1)] if count > 1 else [str(directory)]


def start_s4(directory: Path, *options: str, count: int = 1) -> Peer:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "s4.cli",
            "server",
            *drives(directory, count),
            "--listen",
            "127.0.0.1:9100",
            "--admin-listen",
            "127.0.0.1:9101",
            "--log-format",
            "json",
            *options,
        ],
        env={**os.environ, "S4_ROOT_ACCESS_KEY": ACCESS, "S4_ROOT_SECRET_KEY": SECRET},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for("http://127.0.0.1:9100/readyz", process)
    return Peer(
        "S4",
        said(sys.executable, "-m", "s4.cli", "--version", pattern=r"s4 (\S+)"),
        "http://127.0.0.1:9100",
        process,
        settings=" ".join([f"{count} drives, durability sync", *options]),
    )


def start_cluster(directory: Path, nodes: int, *, partitions: int = 32, erasure: str = "4+2") -> Peer:
    """Nodes with an etcd (`s4 dev`), asked through the first node, with its gateway."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "s4.cli",
            "dev",
            str(directory),
            "--nodes",
            str(nodes),
            "--partitions",
            str(partitions),
            "--erasure",
            erasure,
            "--listen",
            "127.0.0.1:9100",
        ],
        env={**os.environ, "S4_ROOT_ACCESS_KEY": ACCESS, "S4_ROOT_SECRET_KEY": SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
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
        "http://127.0.0.1:9100",
        process,
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
        process,
        settings=f"{count} drives" + (", EC 4+2" if count == 6 else ""),
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
        process,
        key,
        secret,
        "1 node, lmdb, fsync",
    )
