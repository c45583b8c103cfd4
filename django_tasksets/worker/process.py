"""One worker process: a claimer, executor threads, an asyncio loop, a recorder, an announcer.

A subtask's way: claimer → inbox → executor (or the loop) → outbox → recorder → announcer. The main
thread watches: over signals, limits, the supervisor, and whether anybody knows that we live.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from django.db import Error, IntegrityError
from django.dispatch import Signal

from .. import signals
from ..calls import Seconds
from ..execution import Worker
from ..maintenance import register, retire
from ..models import WorkerRecord
from ..statuses import SubtaskStatus
from ..store import get_store
from ..store.contract import Outcome
from ..store.private import reuse_connections
from ..wakeups import LocalBell
from .announcements import Announcements
from .board import Board
from .claimer import Claimer
from .connections import RETRY_EVERY, Apart, clean_up, dedicated
from .executor import Executors
from .limits import Running, overtime
from .load import Load
from .loop import STOPPING
from .memory import memory
from .options import EXIT_LOST, EXIT_RECYCLE, EXIT_STOPPED, WorkerOptions
from .recorder import Recorder

logger = logging.getLogger("django_tasksets")

# How often the main thread looks around.
LOOK: Final[Seconds] = 0.25
# How many more objects than before there are when Python looks for garbage; by default, in its
# versions before and from 3.13.
GARBAGE_AT: Final = 20_000
GARBAGE_BY_DEFAULT: Final = (700, 2000)
# What follows the grace period: recording what was given back, telling what was recorded. The
# supervisor waits a little longer before it ends a process itself.
LAST_WORDS: Final[Seconds] = 2.0


def run_worker(
    options: WorkerOptions,
    board: Board,
    place: int,
    worker_id: uuid.UUID,
    in_child: Callable[[dict[int, Callable[[int, FrameType | None], None]]], int],
) -> None:
    """The process's main function."""
    code = EXIT_LOST
    try:
        reuse_connections()
        _collect_less_garbage()
        process = WorkerProcess(options, board, place, worker_id)
        lifeline = in_child({signal.SIGTERM: process.on_stop, signal.SIGQUIT: process.on_stop})
        code = process.run(lifeline)
    except BaseException:
        logger.exception("worker process failed")
    if code == EXIT_LOST:
        board.give_up(place)
    end_process(code)


def _collect_less_garbage() -> None:
    """Have Python look for it less often than by default, for thousands of subtasks in memory are
    none. What the project has said about that stands."""
    first, *others = gc.get_threshold()
    if first in GARBAGE_BY_DEFAULT:
        gc.set_threshold(GARBAGE_AT, *others)


def end_process(code: int) -> None:
    """Exit at once: threads may be inside user code that does not end."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


class WorkerProcess:
    """Starts the threads, waits for the end, and gives back what is left."""

    def __init__(
        self, options: WorkerOptions, board: Board, place: int, worker_id: uuid.UUID
    ) -> None:
        self.options = options
        self._store = get_store(options.alias)
        self._board, self._place = board, place
        self._lifeline = -1
        self._grace: Seconds = options.grace
        self._is_stopped = False
        self._wake = LocalBell()
        self._doomed: set[uuid.UUID] = set()
        load = Load(
            options,
            board.bells[place],
            at_once=self._store.claims_at_once,
            has_one_writer=self._store.has_one_writer,
        )
        self._load = load
        worker = Worker(
            store=self._store,
            id=worker_id,
            hostname=os.uname().nodename,
            is_revoked=load.is_revoked,
            reads=Apart(options.alias),
        )
        self._worker = worker
        self._announcements = Announcements(self._store, load)
        self._executors = Executors(worker, load, board, place, options)
        self._recorder = Recorder(worker, load, self._executors, self._announcements)
        self._claimer = Claimer(
            worker,
            load,
            self._executors,
            board,
            place,
            options,
            on_end=self._wake.ring,
        )

    def on_stop(self, number: int, frame: FrameType | None) -> None:
        """The handler of signals: QUIT is at once, any other one within the grace period."""
        if number == signal.SIGQUIT:
            self._grace = 0
        self._is_stopped = True
        self._wake.ring()

    def run(self, lifeline: int) -> int:
        """Run to the end; returns the exit code."""
        self._lifeline = lifeline
        if not self._register():
            self._board.leave(self._place)
            return EXIT_STOPPED
        self._tell(signals.worker_started)
        for part in (self._announcements, self._recorder, self._executors, self._claimer):
            part.start()
        self._watch()
        return self._finish()

    def _register(self) -> bool:
        """Write this worker down, however long the database is away; false if it is stopped
        before that. Once there is a row, it takes the ordinary way out."""
        while not self._is_stopped:
            try:
                with dedicated(self._store):
                    queues = self.options.queues
                    register(self._store, self._worker.id, queues=queues, pid=os.getpid())
            except IntegrityError:
                pass  # An earlier try was committed, and we were not told.
            except Error as error:
                logger.warning("worker waits for the database error=%r", error)
                if self._is_orphan(RETRY_EVERY):
                    return False
                continue
            self._board.confirm(self._place, time.monotonic())
            return True
        return False

    def _tell(self, what: Signal) -> None:
        """Send a signal of ours, whose receivers are user code."""
        signals.send(what, WorkerRecord, worker_id=self._worker.id)
        clean_up()

    # Watching

    def _watch(self) -> None:
        while not (self._is_stopped or self._doomed or self._claimer.ended.is_set()):
            if self._is_orphan(LOOK):
                logger.warning("the supervisor is gone, stopping")
                return
            if not self._board.is_known(self._place):
                silence = self._board.silence(self._place)
                logger.error("worker lost id=%s silence=%.1f", self._worker.id, silence)
                self._board.give_up(self._place)
                end_process(EXIT_LOST)
            self._check_threads()
            self._end_overdue()
            self._watch_memory()

    def _is_orphan(self, timeout: Seconds) -> bool:
        """Wait to be woken; whether the supervisor is gone."""
        ends: list[Any] = [self._lifeline, self._wake]
        readable = select.select(ends, [], [], timeout)[0]
        self._wake.hush()
        return self._lifeline in readable

    def _check_threads(self) -> None:
        threads: list[threading.Thread] = [self._recorder, self._announcements]
        threads += self._executors.threads + self._executors.loop.threads
        if not self._claimer.over:
            threads.append(self._claimer)
        dead = [thread.name for thread in threads if not thread.is_alive()]
        if dead:
            raise RuntimeError(f"threads ended: {', '.join(dead)}")

    def _end_overdue(self) -> None:
        """Record what only the end of this process can end: it is over its time limit, or to be
        terminated. What it returns later is refused by the fence."""
        now = time.monotonic()
        calls = self._executors.calls
        overdue = calls.look(now) + self._executors.loop.look(now)
        overdue += [one for one in calls.running() if self._load.is_to_terminate(one.claimed.id)]
        for running in overdue:
            key = running.claimed.id
            if key not in self._doomed:
                self._doomed.add(key)
                logger.error("subtask ended with its process id=%s", key)
                self._executors.outbox.put(self._end_of(running))

    def _end_of(self, running: Running) -> Outcome:
        claimed = running.claimed
        if not self._load.is_to_terminate(claimed.id):
            return overtime(self._worker, running)
        return Outcome(claimed, SubtaskStatus.REVOKED, reason="terminated", started=running.started)

    def _watch_memory(self) -> None:
        limit = self.options.max_memory
        # A process that is too large from the beginning does its work all the same.
        if limit is None or self._claimer.recycling or not self._claimer.claimed:
            return
        if memory() > limit:
            logger.info("worker process is replaced memory=%s", memory())
            self._claimer.recycling = True

    # The end

    def _finish(self) -> int:
        """Stop claiming, let what runs end within the grace period, give the rest back."""
        began = time.monotonic()
        recycle = bool(self._doomed) or (self._claimer.recycling and not self._is_stopped)
        if self._doomed:
            self._grace = 0
        self._claimer.stop(timeout=LOOK)
        self._executors.give_back_unstarted()
        logger.info("worker process ending pid=%s held=%s", os.getpid(), self._load.in_flight)
        while not self._load.is_quiet and time.monotonic() - began < self._grace:
            time.sleep(0.01)
            self._end_overdue()
        self._give_back()
        if not self._recorder.stop(LAST_WORDS):
            logger.error("not everything could be given back id=%s", self._worker.id)
            self._announcements.stop(LAST_WORDS / 2)
            return EXIT_LOST
        self._announcements.stop(LAST_WORDS / 2)
        self._tell(signals.worker_stopped)
        self._retire()
        self._board.leave(self._place)
        return EXIT_RECYCLE if recycle else EXIT_STOPPED

    def _retire(self) -> None:
        """Leave no row behind; what cannot be helped is declared lost after the lease."""
        for is_last in (False, True):
            try:
                with dedicated(self._store):
                    retire(self._store, self._worker.id)
                break
            except Error as error:
                if is_last:
                    logger.warning("worker row left behind id=%s error=%r", self._worker.id, error)

    def _give_back(self) -> None:
        """Record what is held as READY: what it returns later is refused by the fence."""
        held = [claimed for claimed in self._load.held() if claimed.id not in self._doomed]
        loop = self._executors.loop
        loop.cancel([claimed.id for claimed in held], STOPPING)
        until = time.monotonic() + LOOK
        while loop.is_busy and time.monotonic() < until:
            time.sleep(0.01)
        for claimed in held:
            self._executors.outbox.put(Outcome(claimed, SubtaskStatus.READY))
