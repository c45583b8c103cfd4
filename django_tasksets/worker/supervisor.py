"""The parent process: starts the others, replaces those that die, passes signals on.

It never touches the database, so nothing that happens there can keep it from its work.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Final

from ..calls import Seconds
from ..conf import current
from ..ids import new_id
from .board import Board
from .forks import SIGNALS, Forks, cause_of_death, is_stopped
from .heart import run_heart
from .options import EXIT_RECYCLE, EXIT_STOPPED, WorkerOptions
from .process import run_worker
from .reloading import Reloader

logger = logging.getLogger("django_tasksets")

TICK: Final[Seconds] = 1.0
# A child that lived shorter than this has its successor wait before it starts.
SHORT_LIFE: Final[Seconds] = 5.0
FIRST_DELAY: Final[Seconds] = 0.1
LAST_DELAY: Final[Seconds] = 10.0
# How much longer than the grace period a child may take to give its subtasks back.
LAST_WORDS: Final[Seconds] = 4.0
# How long after a time limit a process may still be ending by itself what is over it.
MERCY: Final[Seconds] = 6.0
# Of a process that ended itself: the database did not answer, or we are broken.
GAVE_UP: Final = "could not confirm that it is alive"
# Deaths that a new heart is told of, in case that its predecessor had not got to them.
REMEMBERED: Final = 100


@dataclass(slots=True)
class Child:
    """A process that was started."""

    process: BaseProcess
    started: float
    worker_id: uuid.UUID
    was_killed: bool = False
    """By us, because it took too long to end."""
    stopped: float | None = None
    """Since when it has been stopped, by a signal."""
    overdue: list[uuid.UUID] = field(default_factory=list)
    """What was over its time limit when we killed it for that."""


class Restarts:
    """How long the next one waits, when those before it die young: twice as long each time."""

    def __init__(self) -> None:
        self._delay = FIRST_DELAY

    def after(self, lived: Seconds) -> Seconds:
        """How long to wait after one that lived for so long."""
        self._delay = FIRST_DELAY if lived > SHORT_LIFE else min(self._delay * 2, LAST_DELAY)
        return 0.0 if lived > SHORT_LIFE else self._delay


class Supervisor:
    """Runs until it is told to stop, or until a burst is over."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        self._board = Board(places=options.processes, slots=options.slots)
        self._workers: dict[int, Child] = {}
        self._due = dict.fromkeys(range(options.processes), 0.0)
        """When to start a process in each place that has none."""
        self._restarts = Restarts()
        self._heart: Child | None = None
        self._heart_due = 0.0
        self._heart_restarts = Restarts()
        self._to_heart: Any = None
        self._deaths: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self._died = 0
        self._asked = self._obeyed = 0
        self._kill_at = float("inf")
        self._reloader = Reloader() if options.reload else None

    def run(self) -> int:
        """Run to the end; returns the exit code."""
        self._forks = Forks()
        self._wake_reader, wake_writer = os.pipe()
        os.set_blocking(wake_writer, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            # With nohup it stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:
                signal.signal(number, self._on_signal)
        try:
            self._supervise()
        finally:
            # If this process breaks, nobody would tell its children to end.
            self._forks.let_go()
        # A burst that is over has obeyed nobody.
        if self._reloader is not None and self._obeyed and not self._asked:
            self._reloader.restart()
        return EXIT_STOPPED

    def _supervise(self) -> None:
        while self._due or self._workers:
            self._start_due()
            self._wait()
            self._obey()
            self._bury_workers()
            self._bury_heart()
            self._kill_late()
            self._kill_overdue()
            self._kill_stopped()
            if self._reloader is not None and not self._obeyed and self._reloader.is_to_reload():
                self._stop_workers()
        self._stop_heart()

    # Signals

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Nothing else: it may come between any two statements of this process.
        self._asked += 2 if number == signal.SIGQUIT else 1

    def _obey(self) -> None:
        if self._asked != self._obeyed:
            logger.info("worker stopping%s", " at once" if self._asked > 1 else "")
            self._stop_workers()

    def _stop_workers(self) -> None:
        """Ask all workers to end: in their own time at first, at once the second time."""
        self._obeyed = max(self._asked, 1)
        self._due.clear()
        at_once = self._asked > 1
        grace = 0.0 if at_once else self.options.grace
        self._kill_at = min(self._kill_at, time.monotonic() + grace + LAST_WORDS)
        for child in self._workers.values():
            if child.process.is_alive() and child.process.pid is not None:
                os.kill(child.process.pid, signal.SIGQUIT if at_once else signal.SIGTERM)

    # Workers

    def _start_due(self) -> None:
        now = time.monotonic()
        if self._heart is None and self._heart_due <= now:
            self._start_heart()
        for place, moment in list(self._due.items()):
            if moment <= now:
                del self._due[place]
                self._start_worker(place)

    def _start_worker(self, place: int) -> None:
        worker_id = new_id()
        self._board.clear(place)
        self._board.confirm(place, time.monotonic())
        process = self._forks.start(
            f"taskworker-{place}", run_worker, self.options, self._board, place, worker_id
        )
        self._workers[place] = Child(process, time.monotonic(), worker_id)
        self._tell_heart()
        logger.info("worker process started pid=%s", process.pid)

    def _bury_workers(self) -> None:
        for place, child in list(self._workers.items()):
            code = child.process.exitcode
            if code is None:
                continue
            child.process.join()
            del self._workers[place]
            self._report(place, child, code)
            self._board.listens_no_more(place)
            # A task may have ended it with any code.
            is_done = code == EXIT_STOPPED and self._board.has_left(place)
            if self._obeyed or (self.options.burst and is_done):
                continue
            delay = 0.0
            # One that died of a subtask was well itself.
            if code != EXIT_RECYCLE and not self._board.executing(place):
                delay = self._restarts.after(time.monotonic() - child.started)
            self._due[place] = time.monotonic() + delay

    def _report(self, place: int, child: Child, code: int) -> None:
        """Tell the heart who is gone; of one that did not end in order, what it was executing.

        That may have been its death. Nobody is blamed for an end that was ours or the database's.
        """
        if self._board.has_left(place):
            self._tell_heart()
            return
        has_given_up = self._board.has_given_up(place)
        is_ours = child.was_killed or has_given_up
        executing = [] if is_ours else self._board.executing(place)
        cause = GAVE_UP if has_given_up else cause_of_death(code)
        logger.error("worker process gone pid=%s: %s", child.process.pid, cause)
        self._died += 1
        self._board.mourn(self._died)
        death = {
            "number": self._died,
            "lost": child.worker_id.hex,
            "crashed": [key.hex for key in executing],
            "overdue": [key.hex for key in child.overdue],
            "cause": f"the worker process {cause}",
        }
        self._deaths.append(death)
        self._tell_heart(**death)

    def _kill_late(self) -> None:
        if time.monotonic() > self._kill_at:
            for child in self._workers.values():
                logger.error("worker process killed pid=%s", child.process.pid)
                child.was_killed = True
                child.process.kill()

    def _kill_overdue(self) -> None:
        """End processes that do not end what is over its time limit: they are stopped, or a task
        keeps their interpreter to itself."""
        moment = time.monotonic() - MERCY
        for place, child in self._workers.items():
            overdue = [] if child.was_killed else self._board.overdue(place, moment)
            if overdue:
                logger.error("worker process killed, hangs pid=%s", child.process.pid)
                child.was_killed, child.overdue = True, overdue
                child.process.kill()

    def _kill_stopped(self) -> None:
        """End processes that are stopped for longer than the lease, and may hold subtasks and rows'
        locks for ever: the heart, which goes on, confirms that they are alive."""
        now = time.monotonic()
        for child in self._workers.values():
            if not is_stopped(child.process):
                child.stopped = None
            elif child.stopped is None:
                child.stopped = now
            elif now - child.stopped > current().LEASE and not child.was_killed:
                logger.error("worker process killed, stopped pid=%s", child.process.pid)
                child.was_killed = True
                child.process.kill()

    # The heart

    def _start_heart(self) -> None:
        reader, self._to_heart = self._forks.pipe()
        process = self._forks.start(
            "taskworker-heart", run_heart, self.options, self._board, reader, self._to_heart
        )
        reader.close()
        self._heart = Child(process, time.monotonic(), new_id())
        self._tell_heart()
        # What the last one has done already is nothing to do for this one.
        for death in self._deaths:
            self._tell_heart(**death)

    def _bury_heart(self) -> None:
        if self._heart is not None and self._heart.process.exitcode is not None:
            logger.error("heart gone: %s", cause_of_death(self._heart.process.exitcode))
            self._heart.process.join()
            now = time.monotonic()
            self._heart_due = now + self._heart_restarts.after(now - self._heart.started)
            self._heart = None

    def _tell_heart(self, **death: Any) -> None:
        alive = {child.worker_id.hex: place for place, child in self._workers.items()}
        # If it is dead, its successor is told.
        with suppress(OSError):
            self._to_heart.send_bytes(json.dumps({"alive": alive, **death}).encode())

    def _stop_heart(self) -> None:
        """Its pipe's end tells it to finish what it was told, and go."""
        self._to_heart.close()
        if self._heart is not None:
            self._heart.process.join(LAST_WORDS)
            self._heart.process.kill()
            self._heart.process.join()

    # Waiting

    def _wait(self) -> None:
        children = [*self._workers.values(), *([self._heart] if self._heart else [])]
        moments = [*self._due.values(), *([] if self._heart else [self._heart_due])]
        timeout = min([TICK, *(moment - time.monotonic() for moment in moments)])
        ends: list[Any] = [child.process.sentinel for child in children]
        if self._wake_reader in wait([*ends, self._wake_reader], max(0.0, timeout)):
            os.read(self._wake_reader, 4096)
