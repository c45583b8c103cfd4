"""The event loop that awaits async tasks, hundreds at once."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Final

from ..attempts import Attempt, ainvoke, raised
from ..calls import Seconds
from ..exceptions import SoftTimeLimitExceeded
from ..execution import Execution, Worker, conclude, give_back, prepare
from ..failures import describe
from ..statuses import SubtaskStatus
from ..store.contract import Claimed, Outcome
from .board import Board
from .connections import clean_up
from .limits import Limits, Running, overtime
from .load import Load
from .options import WorkerOptions
from .rooms import Rooms

logger = logging.getLogger("django_tasksets")

PREPARED_AT_ONCE: Final = 50
# How long a task that must end may take to be cancelled; beyond it, the process is replaced.
MERCY: Final[Seconds] = 1.0

# Why a task was cancelled.
REVOKED: Final = "revoked"
STOPPING: Final = "stopping"
SOFT_LIMIT: Final = "soft time limit"
HARD_LIMIT: Final = "time limit"


@dataclass(slots=True)
class Awaited:
    """An execution that is being awaited."""

    prepared: Execution
    running: Running
    task: asyncio.Task[None] | None = None
    why: str = ""
    """Why it was cancelled; empty if it was not, by us."""
    cancelled: float = 0
    """When, by time.monotonic()."""


class Loop:
    """Awaits up to `async_concurrency` tasks at once; more wait their turn.

    A thread of its own prepares them, so that reading arguments, which may ask the database, does
    not hold up those that are being awaited. What they call by `sync_to_async` runs in as many
    threads as the worker has for other tasks, each with its own connections.
    """

    def __init__(
        self,
        worker: Worker,
        load: Load,
        board: Board,
        place: int,
        options: WorkerOptions,
        put: Callable[[Outcome], None],
    ) -> None:
        self._worker, self._load = worker, load
        self._board, self._place = board, place
        self._put = put
        self._inbox: queue.SimpleQueue[Claimed] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._limits = Limits()
        self._first, self._last = options.threads, options.slots - 1
        self._free = list(range(options.async_concurrency))
        self._awaited: list[Awaited | None] = [None] * options.async_concurrency
        self._waiting: deque[Execution] = deque()
        self._is_filling = False
        self._rooms = Rooms(self._loop, options.threads)
        self._are_open = threading.Event()
        self.threads = [
            threading.Thread(target=self._prepare, name="loop-preparer", daemon=True),
            threading.Thread(target=self._run, name="loop", daemon=True),
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self.threads:
            thread.start()

    # From any thread

    def put(self, rows: Iterable[Claimed]) -> None:
        """Hand claimed subtasks of async tasks over, in their order."""
        for row in rows:
            self._inbox.put(row)

    @property
    def is_busy(self) -> bool:
        """Whether anything is being awaited, or about to be."""
        return self._is_filling or any(self._awaited)

    def awaited(self) -> list[Awaited]:
        """All that is being awaited."""
        return [awaited for awaited in self._awaited if awaited is not None]

    def give_back_unstarted(self) -> None:
        """Give back those that wait for their turn."""
        try:
            while True:
                self._put(Outcome(self._inbox.get_nowait(), SubtaskStatus.READY))
        except queue.Empty:
            self._loop.call_soon_threadsafe(self._give_back_waiting)

    def cancel(self, ids: Iterable[uuid.UUID], why: str) -> None:
        """Cancel those that are being awaited, each once."""
        wanted = set(ids)
        for awaited in self.awaited():
            if awaited.prepared.claimed.id in wanted:
                self._cancel_soon(awaited, why)

    def look(self, now: float) -> list[Running]:
        """Cancel those past a limit; returns those that ought to have ended by being cancelled."""
        for awaited in self.awaited():
            running = awaited.running
            if running.is_over(running.hard, now):
                self._cancel_soon(awaited, HARD_LIMIT)
            elif running.is_over(running.soft, now):
                self._cancel_soon(awaited, SOFT_LIMIT)
        return [one.running for one in self.awaited() if self._is_stuck(one, now)]

    def _is_stuck(self, awaited: Awaited, now: float) -> bool:
        must_end = awaited.why == HARD_LIMIT or (
            awaited.why == REVOKED and self._load.is_to_terminate(awaited.prepared.claimed.id)
        )
        return must_end and now - awaited.cancelled > MERCY

    def _cancel_soon(self, awaited: Awaited, why: str) -> None:
        # A second reason counts only if the first has not had its effect: a hard limit.
        if not awaited.why or (why == HARD_LIMIT and awaited.why == SOFT_LIMIT):
            awaited.why, awaited.cancelled = why, time.monotonic()
            self._loop.call_soon_threadsafe(self._cancel, awaited)

    # In the preparing thread

    def _prepare(self) -> None:
        self._are_open.wait()
        while True:
            batch = [self._inbox.get()]
            try:
                while len(batch) < PREPARED_AT_ONCE:
                    batch.append(self._inbox.get_nowait())
            except queue.Empty:
                pass
            clean_up()
            ready = [one for one in map(self._prepared, batch) if one is not None]
            clean_up()
            self._loop.call_soon_threadsafe(self._accept, ready)

    def _prepared(self, claimed: Claimed) -> Execution | None:
        self._board.begin(self._place, self._last, claimed.id)
        try:
            prepared = copy_context().run(prepare, self._worker, claimed)
        except BaseException as error:
            logger.exception("subtask not executed id=%s", claimed.id)
            reason = "it could not be executed"
            prepared = give_back(self._worker, claimed, error, reason=reason)
        finally:
            self._board.end(self._place, self._last)
        if isinstance(prepared, Execution):
            return prepared
        self._put(prepared)
        return None

    # In the loop's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._rooms.open()
        self._are_open.set()
        while True:
            try:
                self._loop.run_forever()
            except BaseException:
                # Some task of a task's own making asked to exit; the others have not.
                logger.exception("the event loop was left, and goes on")

    def _accept(self, prepared: list[Execution]) -> None:
        self._waiting.extend(prepared)
        self._fill()

    def _fill(self) -> None:
        # Said before it is asked whether a suspect is alone, who asks in the other order.
        self._is_filling = True
        try:
            self._begin_waiting()
        finally:
            self._is_filling = False

    def _begin_waiting(self) -> None:
        if self._load.is_alone:
            self._give_back_waiting()
        while self._waiting and self._free:
            prepared = self._waiting.popleft()
            if self._worker.is_revoked(prepared.claimed.id):
                self._put(Outcome(prepared.claimed, SubtaskStatus.REVOKED, reason=REVOKED))
                continue
            slot = self._free.pop()
            running = self._limits.running(prepared, time.monotonic())
            awaited = Awaited(prepared, running)
            # Not this context: it is that of whoever called, another task for example.
            context = self._rooms.enter(slot)
            awaited.task = self._loop.create_task(self._await(awaited, slot), context=context)
            # Not sooner: a task that is cancelled before it has begun never enters its `try`.
            self._awaited[slot] = awaited

    def _give_back_waiting(self) -> None:
        while self._waiting:
            self._put(Outcome(self._waiting.popleft().claimed, SubtaskStatus.READY))

    def _cancel(self, awaited: Awaited) -> None:
        if awaited.task is not None:
            awaited.task.cancel(awaited.why)

    async def _await(self, awaited: Awaited, slot: int) -> None:
        claimed = awaited.prepared.claimed
        self._board.begin(self._place, self._first + slot, claimed.id, awaited.running.until)
        try:
            outcome = await self._outcome(awaited)
        except BaseException as error:
            logger.exception("subtask not executed id=%s", claimed.id)
            reason = "it could not be executed"
            outcome = give_back(self._worker, claimed, error, reason=reason)
        finally:
            self._board.end(self._place, self._first + slot)
            self._awaited[slot] = None
            self._free.append(slot)
            self._rooms.leave(slot)
        self._put(outcome)
        self._fill()

    async def _outcome(self, awaited: Awaited) -> Outcome:
        prepared, running = awaited.prepared, awaited.running
        task, request = prepared.task, prepared.request
        try:
            attempt = await ainvoke(task, request, prepared.args, prepared.kwargs)
        except asyncio.CancelledError as error:
            if awaited.why == STOPPING:
                return Outcome(prepared.claimed, SubtaskStatus.READY)
            if awaited.why == HARD_LIMIT:
                return overtime(self._worker, running, describe(error).traceback)
            attempt = _cancelled(awaited, error)
        outcome = conclude(self._worker, prepared, attempt, running.started)
        outcome.exception = None
        return outcome


def _cancelled(awaited: Awaited, error: asyncio.CancelledError) -> Attempt:
    """What the cancellation of a task came to; one that we did not ask for is a failure."""
    task, request = awaited.prepared.task, awaited.prepared.request
    if awaited.why == SOFT_LIMIT:
        limit = SoftTimeLimitExceeded()
        limit.__cause__ = error
        return raised(task, request, limit)
    if awaited.why == REVOKED:
        return Attempt(status="REVOKED", exception=error)
    return raised(task, request, error)
