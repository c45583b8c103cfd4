"""How much a worker process holds, and how much more it should claim."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from ..calls import Seconds
from ..statuses import RevokeFlag
from ..store.contract import Claimed, Held
from ..wakeups import LocalBell
from .handover import Handover
from .options import WorkerOptions

# How much work to hold ahead of the executors: enough that they never wait for a claim, too
# little to keep from an idle worker.
AHEAD: Final[Seconds] = 0.2
# More than this is given back: when long tasks come after short ones, of which many were claimed.
TOO_FAR: Final[Seconds] = 4 * AHEAD
# How much to hold besides what the loop awaits: beyond it most has been executed, and is not
# recorded because the database is slow or away, or not told because receivers are slow.
MAX_HELD: Final = 3000
# What waits for longer than this without anything moving is better off elsewhere, and begins there
# about when it was thought to begin here.
STALL: Final[Seconds] = 0.75 * AHEAD
# What executing one costs at the most besides the call, one after the other.
OVERHEAD: Final[Seconds] = 0.0002
# Calls that are shorter hand the interpreter over often enough, by what is done between them.
SHORT: Final[Seconds] = 0.001
# The weight of the latest duration in the running mean.
SMOOTHING: Final = 0.1


class Load:
    """Shared by the threads of one process. What has several writers is guarded by the lock."""

    def __init__(
        self, options: WorkerOptions, bell: LocalBell, *, at_once: int, has_one_writer: bool = False
    ) -> None:
        self.bell = bell
        self._queues = frozenset(options.queues)
        self._at_once = at_once
        """How many a claim may take."""
        self._threads = options.threads
        self._async_slots = options.async_concurrency
        self._lock = threading.Lock()
        self._held: dict[uuid.UUID, Claimed] = {}
        self._asynchronous: set[uuid.UUID] = set()
        self._last_async = 0
        self._revoked: dict[uuid.UUID, int] = {}
        # For each thread, 1 while it executes or calls hooks: one writer each, so none waits for a
        # lock.
        self._busy = bytearray(options.threads)
        self._moved = 0.0
        # How many jobs each thread has begun; and since when, and from which sum, it is looked at
        # how fast that goes.
        self._begun = [0] * options.threads
        self._since, self._begun_then = 0.0, 0
        self._mean: Seconds | None = None
        self._handover = Handover() if has_one_writer else None
        self._follow_ups = 0
        # Outcomes that receivers are to be told of, and have been, since the start: each number
        # has one writer.
        self._to_tell = self._told = 0
        self._is_alone = False
        self.all_claimed_at = 0.0
        """The time.monotonic() at which the last claim began, if it left nothing that this process
        could claim (but for rows that somebody had locked); 0.0 if there may be more."""
        self.hungry = False
        """The claimer wants to be woken once there is room for more."""
        self.wants_end = False
        """The claimer wants to be woken once nothing is in flight any more."""

    # What is held

    @property
    def in_flight(self) -> int:
        """Subtasks that were claimed and are not recorded."""
        return len(self._held)

    def take(self, rows: list[Claimed], asynchronous: list[Claimed], waiting: int) -> None:
        """Note newly claimed subtasks, and which of them go to the event loop."""
        if not waiting:
            self._moved = self._since = time.monotonic()
            self._begun_then = sum(self._begun)
        with self._lock:
            self._held.update((row.id, row) for row in rows)
            self._asynchronous.update(row.id for row in asynchronous)
        self._last_async = len(asynchronous)

    def drop(self, gone: Iterable[Claimed]) -> None:
        """Note that subtasks are recorded, or somebody else's."""
        with self._lock:
            for claimed in gone:
                held = self._held.pop(claimed.id, None)
                if held is not None and held.claims != claimed.claims:
                    # It was given back, and has been claimed again in the meantime.
                    self._held[claimed.id] = held
                    continue
                if self._asynchronous:
                    self._asynchronous.discard(claimed.id)
                if self._revoked:
                    self._revoked.pop(claimed.id, None)
        if self.hungry or (self.wants_end and not self._held):
            self._ring()

    def held(self) -> list[Claimed]:
        """All that is held."""
        with self._lock:
            return list(self._held.values())

    # What follows once it is recorded: hooks, signals. A worker ends after it.

    @property
    def is_quiet(self) -> bool:
        """Nothing is in flight, and nothing is left to be done about what was."""
        return not self._held and not self._follow_ups

    def expect(self, follow_ups: int) -> None:
        """Note that so many follow-ups are to come; before drop(), so that no quiet is between."""
        with self._lock:
            self._follow_ups += follow_ups

    def followed_up(self) -> None:
        """Note that one is done."""
        with self._lock:
            self._follow_ups -= 1
        if self.wants_end and self.is_quiet:
            self._ring()

    def will_tell(self, outcomes: int) -> None:
        """Note that receivers are to be told of so many more; for the recorder."""
        self._to_tell += outcomes

    def has_told(self, outcomes: int) -> None:
        """Note that they have been told of so many more; for the announcer."""
        self._told += outcomes

    def unclaimed(self, queues: set[str], since: float) -> set[str]:
        """Those of the queues that may still have something of what had become READY at `since`, a
        time.monotonic()."""
        if self.all_claimed_at <= since:
            return queues
        return queues - self._queues if self._queues else set()

    # What was asked of it

    def set_revoked(self, flagged: list[Held]) -> None:
        """Note which held subtasks are to be revoked."""
        self._revoked = {
            held.id: held.revoke_flag or RevokeFlag.REVOKE
            for held in flagged
            if held.id in self._held
        }

    def is_revoked(self, subtask_id: uuid.UUID) -> bool:
        """Whether a held subtask is to be revoked."""
        return subtask_id in self._revoked

    def is_to_terminate(self, subtask_id: uuid.UUID) -> bool:
        """Whether it is to be revoked even at the cost of this process."""
        return self._revoked.get(subtask_id) == RevokeFlag.TERMINATE

    def revoke_set(self, taskset_id: uuid.UUID) -> None:
        """Note that a set has been marked: its members that have not begun shall not."""
        for claimed in self.held():
            if claimed.set_that_counts == taskset_id:
                self._revoked.setdefault(claimed.id, RevokeFlag.REVOKE)

    def revoked(self) -> list[uuid.UUID]:
        """The held subtasks that are to be revoked."""
        return list(self._revoked)

    # Executing

    def begin(self, slot: int, waiting: int) -> None:
        """A thread has taken a subtask, and leaves so many that wait."""
        self._busy[slot] = 1
        self._begun[slot] += 1
        self._moved = time.monotonic()
        if self.hungry and waiting <= self.target() // 2:
            self._ring()

    def end(self, slot: int, waiting: int) -> None:
        """The thread is done with it."""
        self._busy[slot] = 0
        if self.hungry and not waiting:
            self._ring()

    def observe(self, duration: Seconds) -> None:
        """Learn from the duration of an execution in a thread."""
        if self._mean is None:
            self._mean = duration
        else:
            self._mean += SMOOTHING * (duration - self._mean)

    def writing(self) -> AbstractContextManager[None]:
        """Within the block threads that execute hand the interpreter over soon, where it pays: to
        the thread that writes, which others wait for."""
        if self._handover is None or self._mean is None or self._mean < SHORT:
            return nullcontext()
        return self._handover

    def _ring(self) -> None:
        self.hungry = self.wants_end = False
        self.bell.ring()

    # A suspect is executed alone

    @property
    def is_alone(self) -> bool:
        """A subtask wants to be, or is, the only one that this process executes."""
        return self._is_alone

    def ask_to_be_alone(self) -> bool:
        """Have no other begin from now on; false if somebody else has asked."""
        with self._lock:
            granted = not self._is_alone
            self._is_alone = True
        return granted

    def others(self, slot: int) -> bool:
        """Whether a thread besides this one is executing."""
        return sum(self._busy) > self._busy[slot]

    def is_alone_no_more(self) -> None:
        """Let others begin again."""
        self._is_alone = False
        self.bell.ring()

    def time_to_end(self, waiting: int) -> Seconds:
        """How long all that threads execute, and what waits for one, should take at the most, by
        how long tasks took of late; for ever if nothing is known of that."""
        if self._mean is None or self._asynchronous:
            return float("inf")
        calls = 2 * self._mean * (1 + waiting / self._threads)
        return OVERHEAD * (waiting + self._threads) + calls

    # How much to claim

    def target(self) -> int:
        """How many subtasks may wait for an executor thread."""
        if self._mean is None or self._mean >= AHEAD:
            return 0
        return min(2 * self._at_once, int(self._threads * AHEAD / max(self._mean, 1e-6)))

    def wanted(self, waiting: int) -> int:
        """How many subtasks to claim while `waiting` of them wait for a thread; 0 for none yet."""
        free = self.room_in_loop()
        # What comes next may be async: with all slots of the loop taken, there is no room for it.
        if free <= 0:
            return 0
        idle = self._idle(waiting)
        target = self.target()
        ahead = target - waiting if waiting <= target // 2 else 0
        # Twice what the last claim brought: it grows while only async tasks come, and a claim
        # of others, for whom there is no room, stays small.
        return min(self._at_once, max(idle, ahead) + min(free, 2 * self._last_async))

    def room_in_loop(self) -> int:
        """How many more async subtasks could be awaited."""
        return 0 if self._is_full() else self._async_slots - len(self._asynchronous)

    def room_in_threads(self, waiting: int) -> int:
        """How many more of the others could begin at once."""
        return 0 if self._is_full() else self._idle(waiting)

    def _is_full(self) -> bool:
        held = len(self._held) + self._to_tell - self._told
        return self._is_alone or held >= MAX_HELD + self._async_slots

    def _idle(self, waiting: int) -> int:
        return max(0, self._threads - sum(self._busy) - waiting)

    def is_stalled(self) -> bool:
        """All threads have been busy for a while: what waits would wait behind something long."""
        return all(self._busy) and time.monotonic() - self._moved > STALL

    def falls_behind(self, waiting: int) -> bool:
        """Whether what waits would take much longer than was thought when it was claimed, and keep
        others waiting, of sets that have come since too. That is told by how many have begun of
        late: how long single ones took says little where threads wait for each other. Learns from
        it."""
        now, total = time.monotonic(), sum(self._begun)
        passed, begun = now - self._since, total - self._begun_then
        if passed < AHEAD:
            return False
        self._since, self._begun_then = now, total
        # Where none has begun, all threads are stalled.
        if not begun or waiting * passed <= TOO_FAR * begun:
            return False
        self._mean = max(self._mean or 0, self._threads * passed / begun)
        return True

    def slow_down(self) -> None:
        """Claim nothing ahead until something has ended soon again."""
        self._mean = max(self._mean or 0, AHEAD)
        self._last_async = 0
