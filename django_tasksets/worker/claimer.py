"""The thread that claims: as much as the executors need, as soon as there is something."""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from .. import registry
from ..calls import Seconds
from ..exceptions import UnknownTask
from ..execution import Worker
from ..models import SubtaskRecord
from ..statuses import SubtaskStatus
from ..store.contract import Claimed, Listener, in_claim_order
from ..wakeups import listen
from .board import Board
from .executor import Executors
from .load import Load
from .loop import REVOKED
from .options import WorkerOptions
from .threads import Bookkeeper

logger = logging.getLogger("django_tasksets")

# How long an idle claimer waits without being woken: the heart looks oftener, and rings.
IDLE: Final[Seconds] = 30.0
# How often a claimer that holds subtasks asks whether they are revoked.
WATCH: Final[Seconds] = 0.5
# How often one that holds more than it can execute at once looks whether that gets on.
LOOK: Final[Seconds] = 0.05
PROMOTED_AT_ONCE: Final = 1000
# For how long at most a claim waits for more; and how often, if that was in vain.
GATHER: Final[Seconds] = 0.01
RARELY: Final[Seconds] = 0.1
# How many to claim after having waited for work.
FIRST: Final = 50
# For how long to go on where the last claim has ended: so much later may begin what comes before
# that, more urgent ones and members of shorter sets. It is less than what is held ahead anyway.
LOOK_AROUND: Final[Seconds] = 0.1
# How far to look ahead for async subtasks, while no thread is free for what comes before them.
LOOK_AHEAD: Final = 100


class Claimer(Bookkeeper):
    """Claims until it is stopped, the burst is over, or the process has done its share."""

    def __init__(
        self,
        worker: Worker,
        load: Load,
        executors: Executors,
        board: Board,
        place: int,
        options: WorkerOptions,
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(worker.store, "claimer")
        self._worker, self._load, self._executors = worker, load, executors
        self._board, self._place = board, place
        self._options = options
        self._on_end = on_end
        self.claimed = 0
        """How many, since the start."""
        self._watched = 0.0
        self._looked_ahead = 0.0
        self._gathers_from = 0.0
        self._last: Claimed | None = None
        self._looks_around_at = 0.0
        self._is_unsure = False
        self._listener: Listener | None = None
        self._has_waited = False
        self._is_dry = False
        """A claim has left nothing, and nobody has told of more since."""
        self.ended = threading.Event()
        """There is nothing more to do for this process."""
        self.recycling = False
        """It claims no more, so that another process can take this one's place."""

    def stop(self, timeout: Seconds) -> None:
        """Claim no more; returns when that is so, or when it takes too long."""
        self.over = True
        self._load.bell.ring()
        self.join(timeout)
        self._board.listens_no_more(self._place)

    def turn(self) -> Seconds:
        """Claim and hand over; then wait, unless more may be there."""
        if not self._board.is_known(self._place):
            self._board.listens_no_more(self._place)
            return WATCH
        self._load.hungry = self._load.wants_end = False
        self._board.rest(self._place, rests=False)
        self._watch()
        self._share()
        if wanted := self._wanted():
            if self._is_dry:
                self._wait_for_work(self._pause() if self._load.in_flight else IDLE)
                return 0
            if pause := self._gathering():
                self._gather(pause)
                return 0
            if self._has_waited:
                # Others who are needed shall not wait until all that this one takes is read.
                wanted, self._has_waited = min(wanted, FIRST), False
            if self._claim(wanted) == wanted:
                self._board.ring_waiting(self._place)
            elif pause := self._dry():
                self._wait_for_work(pause)
            return 0
        self._board.listens_no_more(self._place)
        # While there is no room, nobody need tell this process of anything.
        self._is_dry = False
        if self.recycling and self._load.is_quiet:
            self._end()
            return 0
        if self._claim_past_others():
            return 0
        # Flag first, then look again: who took the last one in between has not seen the flag.
        self._load.hungry = self._load.wants_end = True
        return 0 if self._wanted() else self._pause()

    def sleep(self, timeout: Seconds) -> None:
        """Wait to be woken."""
        select.select([self._load.bell], [], [], timeout)
        self._load.bell.hush()

    def _wait_for_work(self, timeout: Seconds) -> None:
        """Wait to be woken, or to be told that there is something to claim: by who tells all
        workers, or by the process beside this one that listens to them."""
        if self._listener is None:
            self._listener = listen(self.store)
            # What came before was not heard.
            self._is_dry = False
            return
        self._has_waited = True
        # Flag first, then look again: who has rung the others in between has not seen the flag.
        self._board.wait(self._place, waits=True)
        if self._board.listens(self._place):
            # A ring that comes along with a hint ends the next wait, at worst for nothing.
            is_told = self._listener.wait(timeout, self._load.bell) or self._load.bell.hush()
        elif not (is_told := self._listener.wait(0, self._load.bell)):
            select.select([self._load.bell], [], [], timeout)
            is_told = self._load.bell.hush()
            # What all have been told meanwhile shall neither pile up nor be news the next time.
            self._listener.wait(0, self._load.bell)
        self._board.wait(self._place, waits=False)
        # To ask again for nothing would be in the way of what comes just then. A burst has to, to
        # learn that it is over.
        self._is_dry = not (is_told or self._options.burst or timeout >= IDLE)

    def _wanted(self) -> int:
        wanted = self._load.wanted(self._executors.waiting())
        if self._options.max_tasks is not None:
            left = self._options.max_tasks - self.claimed
            self.recycling = self.recycling or left <= 0
            wanted = min(wanted, left)
        return 0 if self.recycling else wanted

    def _claim(self, limit: int) -> int:
        now = time.monotonic()
        count = self._claimed(lambda: self._next(limit))
        self._load.all_claimed_at = now if count < limit else 0.0
        return count

    def _next(self, limit: int) -> list[Claimed]:
        """Claim what comes next. For a while that is, where there is much of one kind, what comes
        after the last: what is before it, and came later, comes a little later."""
        rows: list[Claimed] = []
        if self._last is not None and time.monotonic() < self._looks_around_at:
            rows = self.store.claim_on(self._worker.id, self._last, limit)
        if len(rows) < limit:
            self._looks_around_at = time.monotonic() + LOOK_AROUND
            others = self.store.claim(self._worker.id, self._options.queues, limit - len(rows))
            rows = in_claim_order(rows + others) if rows else others
        is_of_one_kind = len({(row.queue_name, row.priority) for row in rows}) == 1
        self._last = rows[-1] if len(rows) == limit and is_of_one_kind else None
        return rows

    def _claim_past_others(self) -> int:
        """Claim subtasks of the kind for which there is room, past those for which there is none:
        async ones while the threads are busy, others while the loop is full."""
        now = time.monotonic()
        if self.recycling or now - self._looked_ahead < WATCH:
            return 0
        room, wants_async = self._load.room_in_loop(), True
        if room <= 0:
            room, wants_async = self._load.room_in_threads(self._executors.waiting()), False
        if self._options.max_tasks is not None:
            room = min(room, self._options.max_tasks - self.claimed)
        if room <= 0:
            return 0
        self._looked_ahead = now
        first = self.store.look_ahead(self._options.queues, LOOK_AHEAD)
        ids = [key for key, task_name in first if is_async(task_name) == wants_async][:room]
        return self._claimed(lambda: self.store.claim_ids(self._worker.id, ids)) if ids else 0

    def _gathering(self) -> Seconds:
        """For how long more is to gather before the next claim. Where there was less than was
        wanted, what comes next is little too; while some is under way it may wait until that has
        been recorded, for it is claimed and recorded in a fraction of the time together with what
        comes after it. So Nagle has TCP send (RFC 896)."""
        now = time.monotonic()
        if not self._load.in_flight or now < self._gathers_from:
            return 0
        return max(0.0, self._load.all_claimed_at + GATHER - now)

    def _gather(self, pause: Seconds) -> None:
        # Flag first, then look again: who has dropped the last one in between has not seen it.
        self._load.wants_end = True
        if self._load.in_flight:
            self.sleep(pause)
        now = time.monotonic()
        if self._load.in_flight and now >= self._load.all_claimed_at + GATHER:
            # What is under way takes long: what comes meanwhile need not wait for it each time.
            self._gathers_from = now + RARELY

    def _claimed(self, claim: Callable[[], list[Claimed]]) -> int:
        # Until the claim is known to have failed or is handed over, rows may be ours unknown to us.
        self._is_unsure = True
        with self._load.writing():
            rows = claim()
        self._hand_over(rows)
        self._is_unsure = False
        return len(rows)

    def _hand_over(self, rows: list[Claimed]) -> None:
        if rows:
            if not self._load.in_flight:
                # What has just been claimed need not be asked about at once.
                self._watched = time.monotonic()
            asynchronous = [row for row in rows if not row.crashes and is_async(row.task_name)]
            self.claimed += len(rows)
            self._load.take(rows, asynchronous, self._executors.waiting())
            ids = {row.id for row in asynchronous}
            others = [row for row in rows if row.id not in ids] if ids else rows
            self._executors.put(others, asynchronous)

    def reconnected(self) -> None:
        """Listen anew, and take over what an earlier claim has brought without our knowing: its
        commit was not acknowledged, and while this worker lives nobody else would."""
        self._board.listens_no_more(self._place)
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        if not self._is_unsure:
            return
        held = {(claimed.id, claimed.claims) for claimed in self._load.held()}
        mine = SubtaskRecord.objects.using(self.store.alias).filter(
            status=SubtaskStatus.RUNNING, worker_id=self._worker.id
        )
        rows = self.store.claimed_rows(mine)
        strays = [row for row in rows if (row.id, row.claims) not in held]
        if strays:
            logger.warning("subtasks claimed without an answer count=%s", len(strays))
            self._hand_over(strays)
        self._is_unsure = False

    def _dry(self) -> Seconds:
        """There is nothing more to claim now; returns how long to wait."""
        if not self._options.burst:
            return self._pause() if self._load.in_flight else IDLE
        self._load.wants_end = True
        if not self._load.is_quiet:
            return WATCH
        self._board.rest(self._place, rests=True)
        if self._board.is_mourning or not self._board.others_rest(self._place):
            return WATCH
        # What has ended last may have released something, here or elsewhere.
        if not self.store.promote(PROMOTED_AT_ONCE) and not self._claim(1):
            self._end()
        return 0

    def _pause(self) -> Seconds:
        return LOOK if self._executors.waiting() else WATCH

    def _end(self) -> None:
        self.over = True
        self.ended.set()
        self._on_end()

    def _watch(self) -> None:
        """Learn which of the held subtasks are to be revoked."""
        now = time.monotonic()
        if not self._load.in_flight or now - self._watched < WATCH:
            return
        self._watched = now
        self._load.set_revoked(self._worker.store.flagged(self._worker.id))
        self._executors.loop.cancel(self._load.revoked(), REVOKED)

    def _share(self) -> None:
        """Give back what waits too long: others may be idle."""
        waiting = self._executors.waiting()
        if waiting and self._load.is_stalled():
            self._executors.give_back_unstarted()
            self._load.slow_down()
        elif self._load.falls_behind(waiting):
            self._executors.give_back_unstarted()


def is_async(task_name: str) -> bool:
    """Whether the task of that name is known here, and awaited."""
    try:
        return registry.get(task_name).is_async
    except UnknownTask:
        return False
