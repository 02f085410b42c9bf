"""`python -m bench.held [REVISION …]`: how long everybody else waits while somebody does the worst that one client can.

    python -m bench.held 81ee94b [--parts 10000] [--slow 2000] [--sockets 4096]

For this tree, or each revision that is named, one server; the slowest of a stream of GETs, PUTs (both 8 KiB) and /healthz, one after the
other on connections of their own, while an object of many parts is completed, copied, listed and deleted, while clients
begin uploads and downloads of 64 MiB and do nothing more, and while sockets are open that say nothing. `refused` counts
answers other than 200 and connections that were not taken.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
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
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "daemon"))
ACCESS, SECRET, LARGE = "benchroot", "benchrootsecret", 64 << 20


class Server:
    """A server of some tree."""

    def __init__(self, tree: Path, scratch: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree / "daemon"), "S4_ROOT_ACCESS_KEY": ACCESS, "S4_ROOT_SECRET_KEY": SECRET}
        options = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--limit", "part_min_bytes=1", "--limit", "connections=8192"]
        self.process = subprocess.Popen([sys.executable, "-m", "s4.cli", "server", str(scratch / "data"), *options], stdout=subprocess.PIPE, env=environment)
        line = self.process.stdout.readline().decode() if self.process.stdout else ""
        found = re.search(r"S3 at http://(\S+),.*?(http://\S+\d)", line)
        if found is None:
            raise RuntimeError(f"no server: {line}")
        self.host, self.admin = found[1], found[2]

    def signed(self, access: str, secret: str, method: str, target: str, extra: dict[str, str] | None = None) -> dict[str, str]:
        from s4.s3 import sigv4  # noqa: PLC0415 - after the path is set

        headers = {"host": self.host, "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), "x-amz-content-sha256": sigv4.UNSIGNED, **(extra or {})}
        return {**headers, "authorization": sigv4.authorization(access, secret, "us-east-1", method, target, headers)}

    def add_user(self, tree: Path, name: str, bucket: str) -> dict[str, str]:
        environment = {**os.environ, "PYTHONPATH": str(tree / "daemon"), "S4_ROOT_ACCESS_KEY": ACCESS, "S4_ROOT_SECRET_KEY": SECRET}
        asked = [sys.executable, "-m", "s4.cli", "admin", "--json", "--endpoint", self.admin, "user", "add", name, "--grant", f"Writer:{bucket}"]
        return dict(json.loads(subprocess.run(asked, check=True, capture_output=True, env=environment).stdout))

    def head(self, method: str, path: str, query: str = "", length: int | None = None, extra: dict[str, str] | None = None, keys: tuple[str, str] = (ACCESS, SECRET)) -> bytes:
        """A signed request without its body."""
        target = f"{path}?{query}" if query else path
        headers = self.signed(*keys, method, target, extra)
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, *([f"content-length: {length}"] if length is not None else []), "", ""]).encode()

    def begin(self, raw: bytes) -> socket.socket:
        name, _, port = self.host.rpartition(":")
        one = socket.create_connection((name, int(port)), timeout=900)
        one.sendall(raw)
        return one

    def ask(self, method: str, path: str, query: str = "", body: bytes = b"", extra: dict[str, str] | None = None, *, raw: bool = False, keys: tuple[str, str] = (ACCESS, SECRET)) -> tuple[int, bytes]:
        text = f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() if raw else self.head(method, path, query, len(body), extra, keys) + body
        with self.begin(text) as one:
            answer = http.client.HTTPResponse(one, method=method)
            answer.begin()
            return answer.status, answer.read()


class Others:
    """Everybody else, who is another user: the slowest of each kind between two looks."""

    def __init__(self, server: Server, user: dict[str, str]) -> None:
        keys = user["access_key"], user["secret_key"]
        body = bytes(8192)
        self._server, self._ended = server, False
        self.slowest: dict[str, float] = {}
        self.refused = 0
        works = {"GET": lambda: server.ask("GET", "/held/small", keys=keys), "PUT": lambda: server.ask("PUT", "/held/new", body=body, keys=keys), "/healthz": lambda: server.ask("GET", "/healthz", raw=True)}
        self._threads = [threading.Thread(target=self._run, args=(name, work), daemon=True) for name, work in works.items()]
        for thread in self._threads:
            thread.start()

    def _run(self, name: str, work: Callable[[], tuple[int, bytes]]) -> None:
        while not self._ended:
            began = time.monotonic()
            try:
                fine = work()[0] == 200
            except (OSError, http.client.HTTPException):
                fine = False
            self.refused += not fine
            self.slowest[name] = max(self.slowest.get(name, 0.0), time.monotonic() - began)
            time.sleep(0.01)

    def during(self, what: str, work: Callable[[], object]) -> None:
        time.sleep(0.5)
        self.slowest, self.refused = {}, 0
        began = time.monotonic()
        work()
        took = time.monotonic() - began
        time.sleep(1.0)
        slowest = [f"{self.slowest.get(name, float('nan')) * 1000:.0f}" for name in ("GET", "PUT", "/healthz")]
        print(f"| {what} | {took:.1f} | {' | '.join(slowest)} | {self.refused} |", flush=True)

    def end(self) -> None:
        self._ended = True


def measure(server: Server, tree: Path, parts: int, slow: int, sockets: int) -> None:
    server.ask("PUT", "/held")
    server.ask("PUT", "/held/small", body=bytes(8192))
    server.ask("PUT", "/held/large", body=bytes(LARGE))
    upload = re.search(rb"<UploadId>(\w+)<", server.ask("POST", "/held/parts", "uploads=")[1])[1].decode()  # type: ignore[index]

    def part(number: int) -> str:
        _, _ = server.ask("PUT", "/held/parts", f"partNumber={number}&uploadId={upload}", number.to_bytes(4, "big") * 1100)
        import hashlib  # noqa: PLC0415

        return hashlib.md5(number.to_bytes(4, "big") * 1100, usedforsecurity=False).hexdigest()

    with ThreadPoolExecutor(8) as pool:
        etags = list(pool.map(part, range(1, parts + 1)))
    xml = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in enumerate(etags, 1))
    body = f"<CompleteMultipartUpload>{xml}</CompleteMultipartUpload>".encode()
    others = Others(server, server.add_user(tree, "others", "held"))
    others.during("nothing else", lambda: time.sleep(3))
    others.during(f"completed, {parts} parts", lambda: server.ask("POST", "/held/parts", f"uploadId={upload}", body))
    others.during("100 times HEAD of it", lambda: [server.ask("HEAD", "/held/parts") for _ in range(100)])
    others.during("copied", lambda: server.ask("PUT", "/held/copy", extra={"x-amz-copy-source": quote("/held/parts")}))
    others.during("listed, 100 times", lambda: [server.ask("GET", "/held", "list-type=2") for _ in range(100)])
    others.during("deleted", lambda: server.ask("DELETE", "/held/parts"))
    others.during("the 10 s after that", lambda: time.sleep(10))
    with ExitStack() as stack:
        uploads = [server.head("PUT", f"/held/never-{number}", length=LARGE) + bytes(1000) for number in range(slow)]
        others.during(f"{slow} uploads that stop", lambda: [stack.enter_context(server.begin(raw)) for raw in uploads] and time.sleep(10))
    with ExitStack() as stack:
        others.during(f"{slow} downloads that nobody reads", lambda: [stack.enter_context(server.begin(server.head("GET", "/held/large"))) for _ in range(slow)] and time.sleep(10))
    with ExitStack() as stack:
        others.during(f"{sockets} sockets that say nothing", lambda: [stack.enter_context(server.begin(b"")) for _ in range(sockets)] and time.sleep(5))
    others.end()


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.held", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="*")
    for name, number in (("parts", 10_000), ("slow", 2000), ("sockets", 4096)):
        parser.add_argument(f"--{name}", type=int, default=number)
    arguments = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 20_000), most))
    for revision in arguments.revisions or [""]:
        with tempfile.TemporaryDirectory(prefix="s4-held-") as scratch:
            tree = Path(scratch) / "tree" if revision else ROOT
            if revision:
                tree.mkdir()
                packed = subprocess.run(["git", "-C", str(ROOT), "archive", revision, "daemon"], check=True, capture_output=True)
                subprocess.run(["tar", "-x", "-C", str(tree)], input=packed.stdout, check=True)
            server = Server(tree, Path(scratch))
            print(f"\n| {revision or 'this tree'} | took s | slowest GET ms | PUT | /healthz | refused |\n|---|---|---|---|---|---|", flush=True)
            try:
                measure(server, tree, arguments.parts, arguments.slow, arguments.sockets)
            finally:
                server.process.kill()
                server.process.wait()


if __name__ == "__main__":
    main()
