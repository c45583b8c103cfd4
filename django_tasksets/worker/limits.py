"""What each thread executes, for how long it may, and what becomes of one that takes longer."""

from __future__ import annotations

import ctypes
import sys
import threading
import traceback
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass

from ..attempts import Attempt, invoke, raised
from ..calls import Seconds
from ..exceptions import SoftTimeLimitExceeded
from ..execution import Execution, Worker, out_of_time
from ..store.contract import Claimed, Outcome


@dataclass(slots=True)
class Running:
    """An execution that is going on."""

    claimed: Claimed
    started: float
    soft: Seconds | None
    hard: Seconds | None
    thread: int = 0
    was_told: bool = False
    """SoftTimeLimitExceeded has been raised in it."""

    @property
    def until(self) -> float:
        """The time.monotonic() at which its time is up; 0 if it never is."""
        return 0.0 if self.hard is None else self.started + self.hard

    def is_over(self, limit: Seconds | None, now: float) -> bool:
        """Whether it takes longer than that."""
        return limit is not None and now - self.started > limit


class Limits:
    """Knows what a task's limits are."""

    def __init__(self) -> None:
        # By task name: settings and attributes do not change while a worker runs.
        self._known: dict[str, tuple[Seconds | None, Seconds | None]] = {}

    def running(self, prepared: Execution, started: float) -> Running:
        """The execution that begins, with its limits: the call's own, else the task's."""
        task, options = prepared.task, prepared.options
        limits = self._known.get(task.name)
        if limits is None:
            limits = self._known[task.name] = (task.soft_time_limit, task.time_limit)
        soft, hard = limits
        if options:
            soft = options.get("soft_time_limit", soft)
            hard = options.get("time_limit", hard)
        return Running(prepared.claimed, started, soft, hard)


class Threads:
    """What the executor threads execute right now."""

    def __init__(self, threads: int, begin: Callable[[int, Running], None]) -> None:
        self._begin = begin
        """Told of what a slot executes that has a time limit."""
        self._limits = Limits()
        self._running: list[Running | None] = [None] * threads
        self._lock = threading.Lock()

    def call(self, prepared: Execution, slot: int, started: float) -> Attempt:
        """Call the task in this thread, within its limits."""
        running = self._limits.running(prepared, started)
        running.thread = threading.get_ident()
        if running.hard is not None:
            self._begin(slot, running)
        if running.soft is None:
            self._running[slot] = running
            attempt = _invoke(prepared)
            self._running[slot] = None
            return attempt
        return self._call_softly(prepared, slot, running)

    def _call_softly(self, prepared: Execution, slot: int, running: Running) -> Attempt:
        """The exception may come at any moment until it is called off, between two of our own
        statements too; it is the task's unless the task has ended before. In a context of its
        own, since it may also come before `invoke` has taken its request back."""
        attempt: Attempt | None = None
        begun = False
        while True:
            try:
                if not begun:
                    begun = True
                    # From here on it may come.
                    self._running[slot] = running
                    attempt = copy_context().run(_invoke, prepared)
                self._leave(slot, running)
            except SoftTimeLimitExceeded as error:
                attempt = attempt or raised(prepared.task, prepared.request, error)
            else:
                assert attempt is not None
                return attempt

    def _leave(self, slot: int, running: Running) -> None:
        with self._lock:
            self._running[slot] = None
            if running.was_told:
                _call_off(running.thread)

    # From the main thread

    def look(self, now: float) -> list[Running]:
        """Tell those past their soft limit; returns those past their limit."""
        over: list[Running] = []
        for slot, running in enumerate(self._running):
            if running is None:
                continue
            if running.is_over(running.hard, now):
                over.append(running)
            elif running.is_over(running.soft, now):
                self._tell(slot, running)
        return over

    def _tell(self, slot: int, running: Running) -> None:
        with self._lock:
            is_current = self._running[slot] is running
            if is_current and not running.was_told:
                running.was_told = True
                _raise_in(running.thread, SoftTimeLimitExceeded)

    def running(self) -> list[Running]:
        """All that is being executed."""
        return [running for running in self._running if running is not None]


def _invoke(prepared: Execution) -> Attempt:
    return invoke(prepared.task, prepared.request, prepared.args, prepared.kwargs)


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Have that thread raise `error` between two of its bytecodes."""
    exception = ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)


def _call_off(thread: int) -> None:
    """Have this thread not raise what it may have been told to. It is told once more, and that is
    waited for: told to raise nothing, Python 3.11 would loop for ever under a profiler."""
    try:
        _raise_in(thread, SoftTimeLimitExceeded)
        for _ in range(1_000_000):
            pass
    except SoftTimeLimitExceeded:
        pass


def overtime(worker: Worker, running: Running, trace: str = "") -> Outcome:
    """The outcome of an execution that took longer than its time limit."""
    frame = sys._current_frames().get(running.thread) if running.thread else None
    # Where it was, when time was up.
    trace = trace if frame is None else "".join(traceback.format_stack(frame))
    message = f"It took longer than its time limit of {running.hard:g} s"
    outcome = out_of_time(worker, running.claimed, message, trace)
    outcome.started = running.started
    return outcome
