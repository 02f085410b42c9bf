"""Processes that serve S3 beside one that starts them, on the same port: gateway processes of a server, whose store
they reach over a Unix socket (server/worker.py), and further gateways of a cluster's (server/cluster_worker.py).

One that ends is started again. They end with who started them: of a server they lose its socket, of a gateway the one
that is their standard input. On that one each says that it is up: its standard output is that of who started it, where
the audit log may go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial

import structlog
from prometheus_client import multiprocess

from s4.base.jobs import Job, Jobs

log = structlog.get_logger("s4")

RESTART_S = 1.0
START_S = 300.0  # a busy machine starts a process in minutes; one that fails is tried again all the while
METRICS = "PROMETHEUS_MULTIPROC_DIR"


class Workers:
    """`arguments()` are the interpreter's, for one that starts now; it says a byte on its standard
    input once it is up."""

    def __init__(self, arguments: Callable[[], list[str]], environment: Mapping[str, str], jobs: Jobs) -> None:
        self._arguments, self._environment, self._jobs = arguments, environment, jobs
        self._processes: list[asyncio.subprocess.Process] = []
        self._stopping = False

    def __bool__(self) -> bool:
        return bool(self._processes)

    async def start(self, count: int) -> None:
        """Returns once each is up. Raises TimeoutError with a message for people."""
        started = [asyncio.Event() for _ in range(count)]
        for number, event in enumerate(started):
            self._jobs.start(Job(f"worker {number}", 0.0, RESTART_S, partial(self._run, number, event)))
        try:
            async with asyncio.timeout(START_S):
                await asyncio.gather(*(event.wait() for event in started))
        except TimeoutError:
            raise TimeoutError(f"the gateway processes (--workers) did not start within {START_S:.0f} s") from None

    async def _run(self, number: int, started: asyncio.Event) -> None:
        """One life of a worker."""
        if self._stopping:
            return
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, *self._arguments(), stdin=theirs.fileno(), env={**os.environ, **self._environment}
                )
            self._processes.append(process)
            is_up = bool(await asyncio.get_running_loop().sock_recv(ours, 1))
            if is_up:
                started.set()
            code = await process.wait()
        self._processes.remove(process)
        multiprocess.mark_process_dead(process.pid, self._environment.get(METRICS))  # type: ignore[no-untyped-call]
        if self._stopping:
            return
        log.error("worker ended and is started again", worker=number, code=code)
        if not is_up:
            raise RuntimeError(f"a gateway process (--workers) ended with {code} before it was up; the log says why")

    def tell(self, number: signal.Signals) -> None:
        """A signal to each."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def close(self) -> None:
        """Have each take no more requests and let those in flight end. Returns once they are gone."""
        self._stopping = True
        waiting = [process.wait() for process in self._processes]
        self.tell(signal.SIGTERM)
        await asyncio.gather(*waiting)
