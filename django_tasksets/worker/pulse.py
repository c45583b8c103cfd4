"""The thread that says who is alive, and that what was scheduled is due."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Final

from ..calls import Seconds
from ..conf import current
from ..maintenance import beat
from ..models import SubtaskRecord
from ..statuses import SubtaskStatus
from ..store.contract import Store
from ..store.moments import Now
from ..wakeups import wake
from .board import DEAD, Board
from .options import WorkerOptions
from .threads import Bookkeeper

logger = logging.getLogger("django_tasksets")

# How often due subtasks are looked for, at least.
TICK: Final[Seconds] = 1.0
PROMOTED_AT_ONCE: Final = 1000
# A worker registers within this time; one that is missing after it has been declared dead.
BIRTH: Final[Seconds] = 5.0


class Pulse(Bookkeeper):
    """Beats for the living workers, four times in a lease, and promotes on time."""

    def __init__(self, store: Store, options: WorkerOptions, board: Board) -> None:
        super().__init__(store, "pulse")
        self._options = options
        self._board = board
        self._next_beat = 0.0
        self.workers: dict[uuid.UUID, int] = {}
        """The living workers' ids, and their places on the board."""

    def turn(self) -> Seconds:
        """Do what is due; a batch of due subtasks at a time, so that heartbeats come between."""
        now = time.monotonic()
        if now >= self._next_beat:
            self.beat()
            self._next_beat = now + current().LEASE / 4
        self._show_health()
        return self._promote()

    def beat(self) -> None:
        """Confirm that the workers are alive, and tell those whom nobody takes for that."""
        moment = time.monotonic()
        workers = self.workers
        living = beat(self.store, workers) if workers else set()
        for worker_id, place in workers.items():
            if worker_id in living:
                self._board.confirm(place, moment)
            elif self._board.confirmed(place) < moment - BIRTH:
                self._board.confirm(place, DEAD)

    def _show_health(self) -> None:
        path, places = self._options.health_file, list(self.workers.values())
        is_whole = len(places) == self._options.processes
        if path is not None and is_whole and all(map(self._board.is_known, places)):
            try:
                path.touch()
            except OSError as error:
                logger.warning("health file not touched error=%r", error)

    def _promote(self) -> Seconds:
        """Make due subtasks READY; returns the time until the next one is, at most a tick."""
        scheduled = SubtaskRecord.objects.using(self.store.alias).filter(
            status=SubtaskStatus.SCHEDULED
        )
        soonest = scheduled.order_by("run_after").values_list("run_after", Now()).first()
        if soonest is None:
            return TICK
        run_after, now = soonest
        if run_after > now:
            left: Seconds = (run_after - now).total_seconds()
            return min(TICK, left)
        queues = self.store.promote(PROMOTED_AT_ONCE)
        self._board.ring_all()
        if queues:
            wake(self.store, queues)
        # Others may hold the rows that are due: look again soon, not at once.
        return 0 if queues else TICK / 10
