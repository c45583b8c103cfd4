"""The thread that hears wake-ups."""

from __future__ import annotations

from typing import Final

from ..calls import Seconds
from ..models import SubtaskRecord
from ..store.contract import Listener, Store
from ..wakeups import LocalBell, listen
from .board import Board
from .options import WorkerOptions
from .threads import Bookkeeper

# However seldom it is to look: longer turns would be taken for those of a dead connection.
LONGEST: Final[Seconds] = 2.0


class Ear(Bookkeeper):
    """Rings the workers when there may be something to claim: it has been told, or has looked."""

    def __init__(self, store: Store, options: WorkerOptions, board: Board) -> None:
        super().__init__(store, "ear")
        self._queues = options.queues
        self._interval = options.interval
        self._board = board
        self._bell = LocalBell()
        self._listener: Listener | None = None

    def turn(self) -> Seconds:
        """Wait for a hint, and look if none comes."""
        if self._listener is None:
            self._listener = listen(self.store)
        patience = min(self._interval * self._listener.patience, LONGEST)
        heard = self._listener.wait(patience, self._bell)
        if heard or self._any_ready():
            self._board.ring_all()
        return 0

    def reconnected(self) -> None:
        """Listen anew. What came in between was not heard."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        self._board.ring_all()

    def _any_ready(self) -> bool:
        ready = SubtaskRecord.objects.using(self.store.alias).ready().order_by()
        if self._queues:
            ready = ready.filter(queue_name__in=self._queues)
        return ready.exists()
