"""The threads that give back what the dead held, and repair what is broken."""

from __future__ import annotations

import queue
import time
import uuid
from typing import Any, Final

from django.db import connections

from ..calls import Seconds
from ..conf import current
from ..maintenance import mark_lost, mark_silent_lost, rescue, sweep
from ..store.contract import Store
from ..wakeups import wake
from .board import Board
from .connections import clean_up
from .pulse import Pulse
from .threads import Bookkeeper

LAST_WORDS: Final[Seconds] = 2.0
# Of a few thousand subtasks each. More than that at once is for the next time.
CHUNKS: Final = 100


class Rescuer(Bookkeeper):
    """Rescues at once what processes held whose death the supervisor has reported, and four times
    in a lease whatever else has no living worker."""

    def __init__(self, store: Store, board: Board, pulse: Pulse) -> None:
        super().__init__(store, "rescuer")
        self._board = board
        self._pulse = pulse
        self._reports: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._unburied: list[dict[str, Any]] = []
        self._next = 0.0
        self._is_last = False

    def bury(self, report: dict[str, Any]) -> None:
        """Rescue what the process held that this report is about."""
        self._reports.put(report)

    def stop(self) -> None:
        """Bury those who are reported, then end; returns when that is done, or takes too long."""
        self._reports.put(None)
        self.join(LAST_WORDS)

    def turn(self) -> Seconds:
        """Bury, and rescue if it is time."""
        while self._unburied:
            report = self._unburied[0]
            lost = uuid.UUID(report["lost"])
            keys = {name: [*map(uuid.UUID, report[name])] for name in ("crashed", "overdue")}
            # Before others are told, who do not know what it died of.
            self._rescue(**keys, cause=report["cause"], dead=lost)
            mark_lost(self.store, [lost])
            self._board.bury(report["number"])
            self._board.ring_all()
            del self._unburied[0]
        self.over = self._is_last
        now = time.monotonic()
        if now >= self._next and not self.over:
            # First confirm our own: after the machine has slept, their heartbeats are old.
            self._pulse.beat()
            mark_silent_lost(self.store)
            self._rescue()
            self._next = now + current().LEASE / 4
        return max(0.0, self._next - time.monotonic())

    def sleep(self, timeout: Seconds) -> None:
        """Wait for a report."""
        try:
            report = self._reports.get(timeout=timeout)
            while True:
                if report is None:
                    self._is_last = True
                else:
                    self._unburied.append(report)
                report = self._reports.get_nowait()
        except queue.Empty:
            pass

    def _rescue(self, **found: Any) -> None:
        """Rescue all that there is, a chunk at a time."""
        for _ in range(CHUNKS):
            if not rescue(self.store, **found):
                return
            self._board.ring_all()
            wake(self.store, [])


class Sweeper(Bookkeeper):
    """Sweeps at the start, and then every now and then.

    Not on a dedicated connection: what it announces goes to receivers, which are user code.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store, "sweeper")

    def turn(self) -> Seconds:
        """Sweep; the connection is not kept until the next time."""
        try:
            sweep(self.store)
        finally:
            clean_up()
            connections.close_all()
        return current().SWEEP_INTERVAL

    def _connect(self) -> None:
        """No connection before it is needed."""
