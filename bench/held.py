"""`python -m bench.held [REVISION …]`: how long everybody else waits while somebody does the worst that one client can.

    python -m bench.held fef1eea this        0.7 and this tree, one table: before -> after
    python -m bench.held --parts 500 --slow 200 --sockets 400 this        a quick look

For each revision that is named, `this` being the tree as it is, one server; the slowest of a stream of GETs, PUTs
(both 8 KiB, of another user) and /healthz, one after the other on connections of their own, while an object of many
parts is completed, copied, listed and deleted, while clients begin uploads and downloads of 64 MiB and do nothing
more, and while sockets are open that say nothing. `refused` counts answers other than 200 and connections that were
not taken. A request that has not ended when a row ends counts with the time that it has taken so far; what takes
longer than a row may is left behind, and its row says so. All of it takes at most --limit seconds (230) and stops
early where a revision would need more; what was left out is said. On a machine that does other things the figures are
of those too: its load is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import platform
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "daemon"))
ACCESS, SECRET, LARGE = "benchroot", "benchrootsecret", 64 << 20
KINDS = ("GET", "PUT", "/healthz")
PARTS_S = 30.0  # that making the parts may take: then it is as many as were made, which is said
ROW_S, SPARE_S = 40.0, 8.0  # that one row may take; that the last one of a revision may go on after its time
THIS = "this"


class Server:
    """A server of some tree."""

    def __init__(self, tree: Path, scratch: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(tree / "daemon"),
            "S4_ROOT_ACCESS_KEY": ACCESS,
            "S4_ROOT_SECRET_KEY": SECRET,
        }
        options = [
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--limit",
            "part_min_bytes=1",
            "--limit",
            "connections=8192",
        ]
        with (scratch / "log").open("wb") as log:  # thousands of refusals have a line each
            self.process = subprocess.Popen(
                [sys.executable, "-m", "s4.cli", "server", str(scratch / "data"), *options],
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        line = self.process.stdout.readline().decode() if self.process.stdout else ""
        found = re.search(r"S3 at http://(\S+),.*?(http://\S+\d)", line)
        if found is None:
            raise RuntimeError(f"no server: {line}{(scratch / 'log').read_text()[-2000:]}")
        self.host, self.admin = found[1], found[2]

    def signed(
        self, access: str, secret: str, method: str, target: str, extra: dict[str, str] | None = None
    ) -> dict[str, str]:
        from s4.s3 import sigv4  # noqa: PLC0415 - after the path is set

        headers = {
            "host": self.host,
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "x-amz-content-sha256": sigv4.UNSIGNED,
            **(extra or {}),
        }
        return {**headers, "authorization": sigv4.authorization(access, secret, "us-east-1", method, target, headers)}

    def add_user(self, tree: Path, name: str, bucket: str) -> dict[str, str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(tree / "daemon"),
            "S4_ROOT_ACCESS_KEY": ACCESS,
            "S4_ROOT_SECRET_KEY": SECRET,
        }
        asked = [
            sys.executable,
            "-m",
            "s4.cli",
            "admin",
            "--json",
            "--endpoint",
            self.admin,
            "user",
            "add",
            name,
            "--grant",
            f"Writer:{bucket}",
        ]
        return dict(json.loads(subprocess.run(asked, check=True, capture_output=True, env=environment).stdout))

    def head(
        self,
        method: str,
        path: str,
        query: str = "",
        length: int | None = None,
        extra: dict[str, str] | None = None,
        keys: tuple[str, str] = (ACCESS, SECRET),
    ) -> bytes:
        """A signed request without its body."""
        target = f"{path}?{query}" if query else path
        headers = self.signed(*keys, method, target, extra)
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, *([f"content-length: {length}"] if length is not None else []), "", ""]).encode()

    def begin(self, raw: bytes, timeout_s: float = 60.0) -> socket.socket:
        name, _, port = self.host.rpartition(":")
        one = socket.create_connection((name, int(port)), timeout=timeout_s)
        one.sendall(raw)
        return one

    def ask(
        self,
        method: str,
        path: str,
        query: str = "",
        body: bytes = b"",
        extra: dict[str, str] | None = None,
        *,
        raw: bool = False,
        keys: tuple[str, str] = (ACCESS, SECRET),
    ) -> tuple[int, bytes]:
        text = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            if raw
            else self.head(method, path, query, len(body), extra, keys) + body
        )
        with self.begin(text) as one:
            answer = http.client.HTTPResponse(one, method=method)
            answer.begin()
            return answer.status, answer.read()


@dataclass
class Row:
    """What was seen while something was done."""

    took_s: float
    slowest_ms: dict[str, float]
    refused: int
    ended: bool


@dataclass
class Others:
    """Everybody else, who is another user: the slowest of each kind between two looks."""

    server: Server
    user: dict[str, str]
    until: float
    rows: dict[str, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keys, server, body = (self.user["access_key"], self.user["secret_key"]), self.server, bytes(8192)
        self._ended, self._refused = False, 0
        self._slowest: dict[str, float] = {}
        self._began: dict[str, float] = {}  # of those that run
        works: dict[str, Callable[[], tuple[int, bytes]]] = {
            "GET": lambda: server.ask("GET", "/held/small", keys=keys),
            "PUT": lambda: server.ask("PUT", "/held/new", body=body, keys=keys),
            "/healthz": lambda: server.ask("GET", "/healthz", raw=True),
        }
        for name, work in works.items():
            threading.Thread(target=self._run, args=(name, work), daemon=True).start()

    def _run(self, name: str, work: Callable[[], tuple[int, bytes]]) -> None:
        while not self._ended:
            self._began[name] = began = time.monotonic()
            try:
                fine = work()[0] == 200
            except (OSError, http.client.HTTPException):
                fine = False
            del self._began[name]
            self._refused += not fine
            self._slowest[name] = max(self._slowest.get(name, 0.0), time.monotonic() - began)
            time.sleep(0.01)  # they ask for little

    def during(self, what: str, work: Callable[[], object]) -> None:
        if time.monotonic() > self.until:
            print(f"  {what}: left out, the time is over", flush=True)
            return
        time.sleep(0.3)  # what the row before left to do
        self._slowest, self._refused = {}, 0
        began = time.monotonic()
        working = threading.Thread(target=work, daemon=True)
        working.start()
        working.join(min(ROW_S, max(1.0, self.until + SPARE_S - began)))
        took_s = time.monotonic() - began
        time.sleep(0.7)  # what waits for what was done begins in its row
        now, running = time.monotonic(), dict(self._began)
        slowest = {
            name: max(self._slowest.get(name, 0.0), now - max(running.get(name, now), began)) * 1000 for name in KINDS
        }
        row = self.rows[what] = Row(took_s, slowest, self._refused, not working.is_alive())
        texts = ", ".join(f"{name} {slowest[name]:.0f} ms" for name in KINDS)
        print(
            f"  {what}: {took_s:.1f} s{'' if row.ended else ' and not done'}; slowest {texts}; {row.refused} refused",
            flush=True,
        )

    def end(self) -> None:
        self._ended = True


def _parts(server: Server, parts: int) -> tuple[str, bytes, int]:
    """The id of an upload with so many parts, or as many as there is time for, the body of its completion, and how
    many."""
    upload = re.search(rb"<UploadId>(\w+)<", server.ask("POST", "/held/parts", "uploads=")[1])[1].decode()  # type: ignore[index]
    local, until = threading.local(), time.monotonic() + PARTS_S

    def part(number: int) -> str:
        if time.monotonic() > until:
            return ""
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(server.host, timeout=60)
        body, target = number.to_bytes(4, "big") * 1100, f"/held/parts?partNumber={number}&uploadId={upload}"
        local.connection.request("PUT", target, body, server.signed(ACCESS, SECRET, "PUT", target))
        answer = local.connection.getresponse()
        if answer.read() or answer.status != 200:
            raise RuntimeError(f"part {number}: {answer.status}")
        return hashlib.md5(body, usedforsecurity=False).hexdigest()

    with ThreadPoolExecutor(8) as pool:
        etags = list(takewhile(bool, pool.map(part, range(1, parts + 1))))
    xml = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in enumerate(etags, 1)
    )
    return upload, f"<CompleteMultipartUpload>{xml}</CompleteMultipartUpload>".encode(), len(etags)


def _crowd(server: Server, stack: ExitStack, requests: list[bytes], then_s: float) -> None:
    """So many connections, each of which begins a request and does nothing more."""
    for raw in requests:
        with contextlib.suppress(OSError):  # refused or cut: others still come
            stack.enter_context(server.begin(raw, 10.0))
    time.sleep(then_s)  # the row: they do nothing for so long


def measure(server: Server, tree: Path, parts: int, slow: int, sockets: int, until: float) -> dict[str, Row]:
    began = time.monotonic()
    server.ask("PUT", "/held")
    server.ask("PUT", "/held/small", body=bytes(8192))
    server.ask("PUT", "/held/large", body=bytes(LARGE))
    upload, body, made = _parts(server, parts)
    others = Others(server, server.add_user(tree, "others", "held"), until)
    print(f"  an object of {made} parts is ready after {time.monotonic() - began:.0f} s", flush=True)
    others.during("nothing else", lambda: time.sleep(2))
    others.during("completed, of its many parts", lambda: server.ask("POST", "/held/parts", f"uploadId={upload}", body))
    others.during("100 times HEAD of it", lambda: [server.ask("HEAD", "/held/parts") for _ in range(100)])
    others.during("copied", lambda: server.ask("PUT", "/held/copy", extra={"x-amz-copy-source": quote("/held/parts")}))
    others.during("listed, 50 times", lambda: [server.ask("GET", "/held", "list-type=2") for _ in range(50)])
    others.during("deleted", lambda: server.ask("DELETE", "/held/parts"))
    others.during("the 4 s after that", lambda: time.sleep(4))
    crowds = {
        f"{slow} uploads that stop": [
            server.head("PUT", f"/held/never-{number}", length=LARGE) + bytes(1000) for number in range(slow)
        ],
        f"{slow} downloads that nobody reads": [server.head("GET", "/held/large")] * slow,
        f"{sockets} sockets that say nothing": [b""] * sockets,
    }
    for what, requests in crowds.items():
        with ExitStack() as stack:
            others.during(what, lambda stack=stack, requests=requests: _crowd(server, stack, requests, 5.0))  # type: ignore[misc]
    others.end()
    return others.rows


def _tree(revision: str, scratch: Path) -> Path:
    if revision == THIS:
        return ROOT
    tree = scratch / "tree"
    tree.mkdir()
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", revision, "daemon"], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(tree)], input=packed.stdout, check=True)
    return tree


def table(found: dict[str, dict[str, Row]]) -> str:
    """One row for each thing that was done; in each cell the revisions in their order."""
    whats = list(dict.fromkeys(what for rows in found.values() for what in rows))

    def cell(what: str, of: Callable[[Row], str]) -> str:
        return " -> ".join(of(rows[what]) if what in rows else "-" for rows in found.values())

    lines = [
        f"| while ({' -> '.join(found)}) | it took, s | slowest GET, ms | PUT | /healthz | refused |",
        "|---|---|---|---|---|---|",
    ]
    for what in whats:
        cells = [cell(what, lambda row: f"{row.took_s:.1f}{'' if row.ended else '+'}")]
        cells += [cell(what, lambda row, name=name: f"{row.slowest_ms[name]:.0f}") for name in KINDS]  # type: ignore[misc]
        lines.append(f"| {what} | {' | '.join([*cells, cell(what, lambda row: str(row.refused))])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m bench.held", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revisions", nargs="*")
    for name, number in (("parts", 10_000), ("slow", 2000), ("sockets", 4096), ("limit", 230)):
        parser.add_argument(f"--{name}", type=int, default=number)
    arguments = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 20_000), most))
    if most < arguments.sockets + 1000:
        sys.exit(f"this shell may have {most} files open: `ulimit -Hn` must be {arguments.sockets + 1000} or more")
    revisions = arguments.revisions or [THIS]
    head = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], check=False, capture_output=True, text=True
    ).stdout.strip()
    load = os.getloadavg()[0]
    print(
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, {THIS} is {head}, {os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}, load {load:.1f}"
    )
    if load > 0.5 * (os.cpu_count() or 1):
        print("THE MACHINE DOES OTHER THINGS TOO: what differs by little says nothing")
    found: dict[str, dict[str, Row]] = {}
    began = time.monotonic()
    for number, revision in enumerate(revisions, 1):
        print(f"{revision}:", flush=True)
        until = began + arguments.limit * number / len(revisions) - SPARE_S - 2.0
        with tempfile.TemporaryDirectory(prefix="s4-held-") as scratch:
            tree = _tree(revision, Path(scratch))
            server = Server(tree, Path(scratch))
            try:
                found[revision] = measure(server, tree, arguments.parts, arguments.slow, arguments.sockets, until)
            finally:
                server.process.kill()
                server.process.wait()
    print(
        f"\n{table(found)}\n\nIn all {time.monotonic() - began:.0f} s. A cell has the revisions in their order; + is not done when its row ended."
    )


if __name__ == "__main__":
    main()
