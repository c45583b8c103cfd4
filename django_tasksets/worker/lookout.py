"""The thread that looks for work of which no hint has told."""

from __future__ import annotations

from typing import Final

from .. import wakeups
from ..calls import Seconds
from ..models import SubtaskRecord
from ..store.contract import Store
from .board import Board
from .options import WorkerOptions
from .threads import Bookkeeper

LONGEST: Final[Seconds] = 2.5


class Lookout(Bookkeeper):
    """Rings the workers when there is something to claim: hints get lost, and not every database
    gives any."""

    def __init__(self, store: Store, options: WorkerOptions, board: Board) -> None:
        super().__init__(store, "lookout")
        self._queues = options.queues
        self._interval = options.interval
        self._board = board

    def turn(self) -> Seconds:
        """Look. If there is something, and that is not for want of hands, who listens may have been
        kept from it: by a task that does not let go of the interpreter, or by its connection."""
        if self._any_ready():
            self._board.relieve()
            self._board.ring_all()
        return min(self._interval * wakeups.patience(self.store), LONGEST)

    def _any_ready(self) -> bool:
        ready = SubtaskRecord.objects.using(self.store.alias).ready().order_by()
        if self._queues:
            ready = ready.filter(queue_name__in=self._queues)
        return ready.exists()
