"""Time, order and processes of the simulated machines: an event loop whose time is a number.

One loop runs every simulated process. A handle belongs to the process of its context; each process runs its handles in
the order in which they came, as asyncio promises, and which process goes on is drawn from the seed. Blocking work
(executors, the appender's thread) is in `threads.py`.

As madsim does for Rust, the operating system is replaced where Python meets it: `time`, `os.urandom`. So the code that
runs is the code that ships. While no world runs these functions are the real ones.

For editors:
- Nothing here may depend on addresses, real time, hash seeds or the order of sets: the same seed gives the same run.
- What a dead process left behind (tasks, jobs) is kept until its world ends: collected earlier, its `finally` would
  run.
- A dead process has no effect any more: every call into the machine raises `DeadError` there.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import os
import random
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from whole.threads import DeadError, Job, StuckError

EPOCH = 1_800_000_000.0  # wall clocks begin here
JITTER_S = 0.0004  # that a timer is late
STEPS_AT_ONCE = 200_000  # more than that without time going on is a loop that spins

PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


class Process:
    """One incarnation of a process on a host. `rate` is how fast its clocks go, `wall_s` what its wall clock is off."""

    def __init__(self, loop: Loop, name: str, host: str) -> None:
        self.loop, self.name, self.host = loop, name, host
        self.alive, self.paused = True, False
        self.rate, self.wall_s, self.suspended_s = 1.0, 0.0, 0.0
        self.queue: deque[Handle] = deque()
        self.kept: list[Any] = []
        self.errors: list[str] = []
        self.fds: dict[int, Any] = {}
        self.died_of: BaseException | None = None
        self.at_answer: tuple[str, Callable[[], None]] | None = None  # (kind of command or any, what happens)
        self.at_ask: Callable[[Any], None] | None = (
            None  # what happens to the connection that the next command is sent on
        )
        self.on_death: list[Callable[[], None]] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)

    def monotonic(self) -> float:
        return 1000.0 + self.loop.now * self.rate - self.suspended_s

    def boottime(self) -> float:
        return 1000.0 + self.loop.now * self.rate

    def wall(self) -> float:
        return EPOCH + self.loop.now * self.rate + self.wall_s

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """A task of this process."""
        return self.loop.create_task(work, context=self.context.copy())

    def die(self, error: BaseException | None = None) -> None:
        """End at once. What it does after this line has no effect."""
        if self.alive:
            self.alive, self.died_of = False, error
            self.kept.append(list(self.queue))
            self.queue.clear()
            self.loop.forget(self)
            for told in self.on_death:
                told()

    def fatal(self, error: BaseException) -> None:
        """What `restart.die` is to a real process: it ends here."""
        self.loop.note(f"{self.name} ends: {type(error).__name__}: {error}")
        self.die(error)
        raise DeadError

    def answers(self, command: str) -> None:
        """A command was decided here, and committed if it is to be; its answer has not left."""
        if self.at_answer is not None and self.at_answer[0] in ("", command):
            (_, happens), self.at_answer = self.at_answer, None
            happens()

    def asks(self, connection: Any) -> None:
        """A command is being sent to another process."""
        if self.at_ask is not None:
            happens, self.at_ask = self.at_ask, None
            self.loop.at(0.0, partial(happens, connection))  # it is on its way then

    def pause(self, seconds: float) -> None:
        """Stand still, as after SIGSTOP."""
        if self.alive and not self.paused:
            self.paused = True
            self.loop.forget(self)
            self.loop.at(seconds, self._resume)

    def _resume(self) -> None:
        self.paused = False
        if self.alive and self.queue:
            self.loop.is_ready(self)


class Task(asyncio.Task):  # type: ignore[type-arg]
    """Hashed by its number, so that sets of tasks have the same order in each run."""

    _numbers = 0
    process: Process | None = None
    asked = 0.0  # when, of what a client asked for

    def __new__(cls, *_: Any, **__: Any) -> Task:
        self = super().__new__(cls)
        Task._numbers += 1
        self._number = Task._numbers
        return self

    def __hash__(self) -> int:
        return self._number  # type: ignore[no-any-return]


class Future(asyncio.Future):  # type: ignore[type-arg]
    """As `Task`; few are ever hashed, so each gets its number then."""

    __slots__ = ("_number",)

    def __hash__(self) -> int:
        try:
            return self._number
        except AttributeError:
            Task._numbers += 1
            self._number: int = Task._numbers
            return self._number


class Handle:
    """`asyncio.Handle`, and its TimerHandle, without what is for debugging: there are some hundred thousand in a
    seed."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context")

    def __init__(self, callback: Any, args: Any, context: contextvars.Context) -> None:
        self._callback, self._args, self._context, self._cancelled = callback, args, context, False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None

    def cancelled(self) -> bool:
        return self._cancelled


class TimerHandle(Handle):
    __slots__ = ("_when",)

    def when(self) -> float:
        return self._when


class Loop(asyncio.AbstractEventLoop):
    """`run(until)` runs everything until that virtual second. `note` adds to the trace, whose sum tells runs apart."""

    def __init__(self, seed: int, *, keep_trace: bool = False) -> None:
        self.random = random.Random(f"order {seed}")
        self.entropy = random.Random(f"entropy {seed}")
        self.preempted = random.Random(f"threads {seed}").choice(
            (0.005, 0.02, 0.15)
        )  # how often a thread is left standing
        self.now = 0.0
        self.steps = self.sum = self.misuse = 0
        self.trace: list[str] | None = [] if keep_trace else None
        self._count = 0
        self._timers: list[
            tuple[float, int, Process | None, Any]
        ] = []  # a handle and whose it is, or what the machine does
        self._ready: list[Process] = []
        self.closed, self.root = False, "\n"  # where the disks are: it is another place in each run
        self.network: Any = None
        self.world: Any = None
        self.notes: deque[str] = deque(maxlen=400)
        self.effects: Counter[str] = Counter()  # what faults did, by name
        Task._numbers = 0
        self.outside = Process(self, "outside", "outside")

    # -- the trace

    def note(self, text: str) -> None:
        """Something worth telling when a run is looked at."""
        line = f"{self.now:10.4f} {text.replace(self.root, '')}"
        self.notes.append(line)
        self._sum(line)

    def _sum(self, line: str) -> None:
        self.sum = zlib.crc32(line.encode(), self.sum)
        if self.trace is not None:
            self.trace.append(line)

    # -- running

    def here(self) -> Process:
        return PROCESS.get(self.outside)

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Run until virtual time `until`, or until `stop()`, which is asked whenever time goes on."""
        asyncio._set_running_loop(self)
        ready, timers, draw = self._ready, self._timers, self.random.random
        same = 0
        try:
            while True:
                if ready:
                    same += 1
                    if same > STEPS_AT_ONCE:
                        raise StuckError(f"something spins at {self.now:.3f}: {ready[0].queue[0]}")
                    index = int(draw() * len(ready)) if len(ready) > 1 else 0
                    process = ready[index]
                    handle = process.queue.popleft()
                    if not process.queue:
                        ready[index] = ready[-1]
                        ready.pop()
                    if not handle._cancelled:
                        self._step(process, handle)
                    continue
                if not timers or timers[0][0] > until or stop():
                    break
                same = 0
                at, _, due, work = heapq.heappop(timers)
                self.now = max(self.now, at)
                if due is None:
                    work()
                elif not work._cancelled:
                    self._now_or_next(due, work)
        finally:
            asyncio._set_running_loop(None)
        self.now = max(self.now, min(until, self.now if stop() else until))

    def _now_or_next(self, process: Process, handle: Handle) -> None:
        """A step of a process from outside of all steps: at once where it is the next one anyway."""
        if process.alive and not process.paused and not process.queue:
            self._step(process, handle)
        else:
            self._enqueue(process, handle)

    def happens(self, process: Process, callback: Any, *args: Any) -> None:
        """Have a process do something as its next step; only for what the machine does (`at`)."""
        self._now_or_next(process, Handle(callback, args, process.context))

    def _step(self, process: Process, handle: Handle) -> None:
        self.steps += 1
        if self.trace is not None:
            callback = handle._callback
            owner = getattr(callback, "__self__", None)
            what = (
                owner.get_coro().__qualname__
                if isinstance(owner, Task)
                else getattr(callback, "__qualname__", type(callback).__name__)
            )
            self._sum(f"{self.now:.6f} {process.name} {what}")
        elif self.steps % 16 == 0:
            self.sum = zlib.crc32(b"%d %s" % (int(self.now * 1e6), process.name.encode()), self.sum)
        try:
            handle._context.run(handle._callback, *handle._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._failed(process, {"message": f"a callback failed: {handle._callback}", "exception": error})

    def ask(self, process: Process, question: Callable[[], Any]) -> Any:
        """What a process would say now, from outside of `run` too: on its clock."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            return process.context.run(question)
        finally:
            asyncio._set_running_loop(before)

    def is_ready(self, process: Process) -> None:
        if process not in self._ready:
            self._ready.append(process)

    def forget(self, process: Process) -> None:
        if process in self._ready:
            self._ready.remove(process)

    def at(self, delay: float, work: Callable[[], None]) -> None:
        """Have the machine do something after some seconds."""
        self._count += 1
        heapq.heappush(self._timers, (self.now + delay, self._count, None, work))

    # -- what asyncio asks of a loop

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Handle:  # type: ignore[override]
        if context is None:
            context = contextvars.copy_context()
        process = context.get(PROCESS, self.outside)
        handle = Handle(callback, args, context)
        if process.alive:
            queue = process.queue
            queue.append(handle)
            if len(queue) == 1 and not process.paused:
                self._ready.append(process)
        else:
            process.kept.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def _enqueue(self, process: Process, handle: Handle) -> None:
        if not process.alive:
            process.kept.append(handle)
            return
        process.queue.append(handle)
        if len(process.queue) == 1 and not process.paused:
            self._ready.append(process)

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Handle:  # type: ignore[override]
        if context is None:
            context = contextvars.copy_context()
        process = context.get(PROCESS, self.outside)
        handle = TimerHandle(callback, args, context)
        handle._when = self.now + delay
        self._count += 1
        due = self.now + max(0.0, delay) / process.rate + self.random.random() * JITTER_S
        heapq.heappush(self._timers, (due, self._count, process, handle))
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Handle:  # type: ignore[override]
        return self.call_later(when - self.time(), callback, *args, context=context)

    def time(self) -> float:
        return self.here().monotonic()

    def create_future(self) -> asyncio.Future[Any]:
        return Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        process = PROCESS.get(self.outside) if context is None else context.get(PROCESS, self.outside)
        task = Task(coro, loop=self, name=name, context=context)
        task.process = process
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        Job(self, self.here(), partial(func, *args), future).begin()
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._failed(self.here(), context)

    def _failed(self, process: Process, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if process.alive and not self.closed and not isinstance(error, DeadError):
            process.errors.append(f"{context.get('message')}: {error!r}")

    async def create_connection(self, factory: Any, host: str, port: int, **_: Any) -> Any:  # type: ignore[override]
        return await self.network.connect(self.here(), factory, host, port)

    async def create_server(self, factory: Any, host: str, port: int, **_: Any) -> Any:  # type: ignore[override]
        return self.network.listen(self.here(), factory, host, port)

    def close(self) -> None:
        """Let go of everything: from here on nothing has any effect."""
        self.closed = True
        self.outside.alive = False
        self._timers.clear()
        self._ready.clear()


# -- the operating system, where Python meets it

_real = SimpleNamespace(
    time=time.time,
    monotonic=time.monotonic,
    time_ns=time.time_ns,
    clock_gettime=time.clock_gettime,
    urandom=os.urandom,
    thread_time=time.thread_time,
)


def running() -> Loop:
    loop = asyncio._get_running_loop()
    assert isinstance(loop, Loop)
    return loop


def _here() -> Process | None:
    loop = asyncio._get_running_loop()
    return loop.here() if isinstance(loop, Loop) else None


def _time() -> float:
    process = _here()
    return process.wall() if process is not None else _real.time()


def _time_ns() -> int:
    process = _here()
    return int(process.wall() * 1e9) if process is not None else _real.time_ns()


def _monotonic() -> float:
    process = _here()
    return process.monotonic() if process is not None else _real.monotonic()


def _thread_time() -> float:
    return 0.0 if _here() is not None else _real.thread_time()  # a made machine takes no processor


def _clock_gettime(clock: int) -> float:
    loop = asyncio._get_running_loop()
    if type(loop) is Loop and clock == time.CLOCK_BOOTTIME:
        return 1000.0 + loop.now * PROCESS.get(loop.outside).rate
    return float(_real.clock_gettime(clock))


def _urandom(size: int) -> bytes:
    loop = asyncio._get_running_loop()
    return loop.entropy.randbytes(size) if isinstance(loop, Loop) else _real.urandom(size)


def install() -> None:
    """Put the simulated clock and entropy in place, for good; to be called before `s4` is imported, whose defaults are
    these."""
    time.time, time.time_ns, time.monotonic, time.clock_gettime = _time, _time_ns, _monotonic, _clock_gettime  # type: ignore[assignment]
    os.urandom, time.thread_time = _urandom, _thread_time
    gc.disable()
