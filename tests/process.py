"""A real `s4 server` process for tests: started, stopped, killed, started again on the same directory."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any, Self
from unittest.mock import patch

import boto3
import pytest
from botocore.config import Config

from addresses import own_address
from s4.cli.admin_client import AdminClient
from s4.cli.starter import Started, Starter

ACCESS, SECRET = "testroot", "testrootsecret"
REGION = "us-east-1"
HANGS_S = 300.0
LETS_GO_S = 60.0
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
# For servers that many tests share, and that end in order; others are killed, or too many: to trace all lines of all
# processes
# takes more than half as long again. `make test` sets S4_COVERAGE; coverage's own variable would reach every Python
# that is started.
COVERED = {"COVERAGE_PROCESS_START": os.environ["S4_COVERAGE"]} if "S4_COVERAGE" in os.environ else {}


# To load the program for each server and each command takes half a second of a processor, and there are hundreds: they
# are
# forked from processes that have it. These are of this test process, by whether what they start is traced for coverage.
_starters: dict[bool, Starter] = {}
_forks = multiprocessing.get_context("forkserver")  # the same for Python that is no command of S4
_forks.set_forkserver_preload(["crash.sites", "model.keeper"])


def starter(covered: bool = False) -> Starter:
    if covered not in _starters:
        with patch.dict(os.environ, COVERED if covered else {}):
            _starters[covered] = Starter()
    return _starters[covered]


def forked(target: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """A process that runs target(*arguments, pipe), and the other end of its pipe."""
    with patch.dict(
        os.environ, PYTHONPATH=os.pathsep.join(sys.path)
    ):  # or Python 3.11 loads nothing beforehand, without a word
        forkserver.ensure_running()
    ours, theirs = _forks.Pipe()
    process = _forks.Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()
    return process, ours


def loaded() -> list[int]:
    """The processes that others are forked from."""
    server: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return [one.pid for one in _starters.values()] + ([server] if server else [])


def start(
    arguments: list[str], environment: dict[str, str], log: IO[bytes], wrapper: Sequence[str] = ()
) -> subprocess.Popen[bytes] | Started:
    """A process of S4, by its command line where something has to come before the program: a wrapper, or what the
    linker or Python itself reads in the environment."""
    before = [
        name
        for name in environment
        if name.startswith(("LD_", "PYTHON", "COVERAGE_")) and environment[name] != os.environ.get(name)
    ]
    if not wrapper and before in ([], list(COVERED)):
        return starter(bool(before)).start(arguments, environment, log)
    return subprocess.Popen(
        [*wrapper, sys.executable, "-m", "s4.cli", *arguments], stdout=subprocess.PIPE, stderr=log, env=environment
    )


def run(
    arguments: Sequence[str], environment: dict[str, str], *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """A command of S4 to its end, forked from the starter like a server: to load it anew takes half a second of a
    processor."""
    with tempfile.TemporaryFile() as errors:
        process = start(list(arguments), environment, errors)
        assert process.stdout is not None
        hangs = threading.Timer(HANGS_S, process.kill)
        hangs.start()
        with process.stdout:
            said = process.stdout.read().decode()
        hangs.cancel()
        code = process.wait(HANGS_S)
        errors.seek(0)
        done = subprocess.CompletedProcess(["s4", *arguments], code, said, errors.read().decode())
    if check and code:
        raise subprocess.CalledProcessError(code, done.args, done.stdout, done.stderr)
    return done


@contextmanager
def small_disk(directory: Path, size: str, *, needed: bool = True) -> Iterator[None]:
    """A tmpfs in place of a directory; where none can be mounted the test is skipped, unless it can do without."""
    directory.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "s4-test", str(directory)]
    mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    if needed and not mounted:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", str(directory)], check=True)


@contextmanager
def ended(server: ServerProcess) -> Iterator[None]:
    """Whatever happens, the server does not outlive this."""
    try:
        yield
    finally:
        if server.process is not None:
            server.kill()


class ServerProcess:
    """`endpoint` and `admin` are URLs once it runs; ports stay the same over restarts."""

    def __init__(
        self, directory: Path, *options: str, drives: int = 1, environment: dict[str, str] | None = None
    ) -> None:
        self.directory, self.options = directory, options
        self.directories = [directory / f"d{number}" for number in range(1, drives + 1)] if drives > 1 else [directory]
        own = {"S4_ROOT_ACCESS_KEY": ACCESS, "S4_ROOT_SECRET_KEY": SECRET, "TMPDIR": str(directory.parent)}
        self.environment = {**own, **(environment or {})}
        self.process: subprocess.Popen[bytes] | Started | None = None
        self.endpoint = self.admin = ""
        self._host = own_address()
        self.wrapper: list[str] = []  # a program that runs the server, such as strace
        self.log = directory.parent / f"{directory.name}.log"

    def start(self) -> ServerProcess:
        listen = ["--listen", self.endpoint.partition("//")[2] or f"{self._host}:0"]
        admin = ["--admin-listen", self.admin.partition("//")[2] or f"{self._host}:0"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("S4_")}
        with self.log.open("ab") as log:
            self.process = start(
                ["server", *map(str, self.directories), *listen, *admin, *self.options],
                {**clean, **self.environment},
                log,
                self.wrapper,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        match = re.search(r"S3 at (\S+), admin at (\S+)", line)
        if match is None:
            raise AssertionError(f"the server did not start: {line}{self.log.read_text()[-3000:]}")
        self.endpoint, self.admin = match[1], match[2]
        return self

    def stop(self) -> int:
        """SIGTERM, and wait; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self._wait()

    def kill(self) -> None:
        """Its workers see that it is gone; until then they listen at its port, and would take what is the next
        one's."""
        assert self.process is not None
        group = self.process.pid if isinstance(self.process, Started) else 0
        self.process.kill()
        self._wait()
        if group and "--workers" in self.options:
            wait_until(lambda: group not in _groups(), "its workers have ended")

    def _wait(self) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        code = self.process.wait(60)
        self.process.stdout.close()
        self.process = None
        return code

    def memory_bytes(self) -> int:
        """Resident memory of the process."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    def ask(self, method: str, path: str, query: str = "") -> Any:
        """An admin call without a program of its own: for what is asked again and again."""
        return list(AdminClient(self.admin, ACCESS, SECRET, REGION).call(method, path, None, query))[-1]

    def settle(self) -> None:
        """Return once nothing waits in an outbox."""
        wait_until(lambda: self.ask("GET", "/status")["freeing_blobs"] == 0, "the outbox is empty")

    def admin_cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `s4 admin` against this server."""
        return run(["admin", "--endpoint", self.admin, *arguments], {**os.environ, **self.environment}, check=check)


def _groups() -> set[int]:
    """Process groups in which something runs."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if state != "Z":
                found.add(int(group))
    return found


def make_client(endpoint: str, access: str = ACCESS, secret: str = SECRET, **options: Any) -> Any:
    """A boto3 client without retries, so that each answer is seen as it is."""
    chosen = {"retries": {"max_attempts": 0}, "s3": {"addressing_style": "path"}, "max_pool_connections": 64, **options}
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name=REGION,
        config=Config(**chosen),
        verify=False,
    )


@contextmanager
def injected(server: ServerProcess | int, calls: str, fault: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the system calls of a server, or of the process of that id, under strace fault injection; lets go of it at
    the end."""
    if isinstance(server, ServerProcess):
        assert server.process is not None
        server = server.process.pid
    tracer = subprocess.Popen(
        [
            "strace",
            "-f",
            "-p",
            str(server),
            "-o",
            "/dev/null",
            "-e",
            f"trace={calls}",
            "-e",
            f"inject={calls}:{fault}",
            *options,
        ],
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    tracer.stderr.readline()
    try:
        yield tracer
    finally:
        tracer.send_signal(signal.SIGINT)
        try:
            tracer.wait(LETS_GO_S)
        except subprocess.TimeoutExpired:  # strace waits for a thread that ends meanwhile; the kernel lets go of all
            tracer.kill()
            tracer.wait()
        tracer.stderr.close()


def wait_until(condition: Callable[[], Any], what: str, pause_most_s: float = 0.1) -> Any:
    """Poll until `condition()` is true; its value. For states of other processes, which no event here tells.

    The limit is for what hangs; nothing that a busy machine makes slow takes so long.
    """
    deadline, pause_s = time.monotonic() + HANGS_S, 0.01
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"never: {what}")
        time.sleep(pause_s)
        pause_s = min(pause_most_s, pause_s * 1.3)


class Crew:
    """Threads, one for each function, from the start of a `with` block to its end; they look at `ended`."""

    def __init__(self, *work: Callable[[], None]) -> None:
        self.ended = False
        self._threads = [threading.Thread(target=one) for one in work]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "a thread of the test does not end"
