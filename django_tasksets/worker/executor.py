"""The threads that call tasks and hooks."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Final, TypeAlias

from ..atomically import execute_atomically
from ..attempts import Attempt
from ..calls import Seconds
from ..execution import Execution, Worker, conclude, give_back, prepare
from ..recording import Recorded
from ..statuses import SubtaskStatus
from ..store.contract import Claimed, Outcome
from .board import Board
from .connections import clean_up, next_of
from .limits import Running, Threads
from .load import Load
from .loop import Loop
from .options import WorkerOptions

logger = logging.getLogger("django_tasksets")

Job: TypeAlias = Claimed | Callable[[], None]
Outbox: TypeAlias = "queue.SimpleQueue[Outcome | Recorded | None]"

# A thread that was idle for longer looks at its connections before it goes on.
IDLE: Final[Seconds] = 1.0
# How often one that is to be alone looks whether it is.
LOOK: Final[Seconds] = 0.01

# How many forks lie between this process and the one that has imported this module. To ask for the
# process id each time would be a call of the system.
_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class Executors:
    """T threads and one event loop that take subtasks, and put what came of them to `outbox`."""

    def __init__(
        self, worker: Worker, load: Load, board: Board, place: int, options: WorkerOptions
    ) -> None:
        self._worker, self._load = worker, load
        self._board, self._place = board, place
        self._forks = _forks
        self._inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.outbox: Outbox = queue.SimpleQueue()
        self.calls = Threads(options.threads, self._note_limit)
        self.loop = Loop(worker, load, board, place, options, self.outbox.put)
        self.threads = [
            threading.Thread(target=self._run, args=(slot,), name=f"executor-{slot}", daemon=True)
            for slot in range(options.threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self.threads:
            thread.start()
        self.loop.start()

    def put(self, rows: Iterable[Claimed], asynchronous: Iterable[Claimed]) -> None:
        """Hand claimed subtasks over, in their order, to the threads and to the loop."""
        for row in rows:
            self._inbox.put(row)
        self.loop.put(asynchronous)

    def call(self, job: Callable[[], None]) -> None:
        """Have a thread call `job`: hooks run where tasks do."""
        self._inbox.put(job)

    def waiting(self) -> int:
        """How many jobs no thread has taken yet."""
        return self._inbox.qsize()

    def give_back_unstarted(self) -> None:
        """Give back the subtasks that have not begun; hooks stay."""
        hooks: list[Callable[[], None]] = []
        try:
            while True:
                job = self._inbox.get_nowait()
                if isinstance(job, Claimed):
                    self.outbox.put(Outcome(job, SubtaskStatus.READY))
                else:
                    hooks.append(job)
        except queue.Empty:
            pass
        for job in hooks:
            self._inbox.put(job)
        self.loop.give_back_unstarted()

    # In a thread

    @property
    def _is_copy(self) -> bool:
        """A task has forked, and this process is the copy."""
        return _forks != self._forks

    def _run(self, slot: int) -> None:
        last = 0.0
        while True:
            job = next_of(self._inbox)
            self._worker.store.pace()
            if time.monotonic() - last > IDLE:
                clean_up()
            # What tasks set in context variables (languages, time zones) ends with them.
            context = copy_context()
            try:
                if isinstance(job, Claimed):
                    context.run(self._execute, job, slot)
                else:
                    context.run(self._call, job, slot)
            except BaseException:  # a hook's SystemExit: the thread is not the user's to end
                logger.exception("executor failed, and goes on")
            if self._is_copy:
                # The task has forked, and this is the end of the copy.
                os._exit(0)
            clean_up()
            last = time.monotonic()

    def _call(self, job: Callable[[], None], slot: int) -> None:
        self._load.begin(slot, self._inbox.qsize())
        try:
            job()
        finally:
            self._load.end(slot, self._inbox.qsize())
            self._load.followed_up()

    def _execute(self, claimed: Claimed, slot: int) -> None:
        self._load.begin(slot, self._inbox.qsize())
        result: Outcome | Recorded = Outcome(claimed, SubtaskStatus.READY)
        try:
            if claimed.crashes:
                result = self._execute_alone(claimed, slot)
            elif not self._load.is_alone:
                result = self._result(claimed, slot)
        except BaseException as error:
            # Ours, not the user's: those are in the result.
            logger.exception("subtask not executed id=%s", claimed.id)
            result = give_back(self._worker, claimed, error, reason="it could not be executed")
        finally:
            self._end(slot)
            self._load.end(slot, self._inbox.qsize())
            self.outbox.put(result)

    def _end(self, slot: int) -> None:
        """Note that the thread executes nothing, unless this is a copy of the process."""
        if not self._is_copy:
            self._board.end(self._place, slot)

    def _execute_alone(self, claimed: Claimed, slot: int) -> Outcome | Recorded:
        """Execute one that was executing when a process died. If this process dies too, that was
        its doing; with others at its side nobody could tell, and they would pay for it."""
        if not self._load.ask_to_be_alone():
            return Outcome(claimed, SubtaskStatus.READY)
        try:
            self.give_back_unstarted()
            while self._load.others(slot) or self.loop.is_busy:
                time.sleep(LOOK)
            return self._result(claimed, slot)
        finally:
            # First: who begins then may end this process, and it would pay for that.
            self._end(slot)
            self._load.is_alone_no_more()

    def _note_limit(self, slot: int, running: Running) -> None:
        """Should this process be kept from looking, the supervisor will."""
        self._board.begin(self._place, slot, running.claimed.id, running.until)

    def _result(self, claimed: Claimed, slot: int) -> Outcome | Recorded:
        self._board.begin(self._place, slot, claimed.id)
        prepared = prepare(self._worker, claimed)
        if isinstance(prepared, Outcome):
            return prepared
        started = time.monotonic()
        result: Outcome | Recorded
        if prepared.task.atomic:

            def call(execution: Execution) -> Attempt:
                return self.calls.call(execution, slot, started)

            result = execute_atomically(self._worker, prepared, call)
        else:
            attempt = self.calls.call(prepared, slot, started)
            result = conclude(self._worker, prepared, attempt, started)
        if isinstance(result, Outcome):
            # With its traceback it would keep the frames, and what is in them, until it is told.
            result.exception = None
        self._load.observe(time.monotonic() - started)
        return result
