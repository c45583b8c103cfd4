"""The thread that shows on the standard output how the sets stand: `--progress`."""

from __future__ import annotations

import sys
import threading
import uuid
from typing import Final

from ..calls import Seconds
from ..models import TaskSetRecord
from ..progress import COLUMNS, as_line, progress_of
from ..store.contract import Store
from .threads import Bookkeeper

INTERVAL: Final[Seconds] = 1.0
LAST_WORDS: Final[Seconds] = 2.0
# Sets that are shown at a time, the oldest first.
SHOWN: Final = 20


class Display(Bookkeeper):
    """Prints a line for each running set, again when its counts have changed, and its last one
    when it has finished."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, "display")
        self._lines: dict[uuid.UUID, str] = {}
        """What was printed last of the sets that have not finished."""
        self._is_last = threading.Event()

    def stop(self) -> None:
        """Show the last changes, then end; returns when that is done, or takes too long."""
        self._is_last.set()
        self.join(LAST_WORDS)

    def turn(self) -> Seconds:
        """Print what has changed since the last turn."""
        self.over = self._is_last.is_set()
        sets = TaskSetRecord.objects.using(self.store.alias).only("name", *COLUMNS)
        running = {record.pk: record for record in sets.running().order_by("id")[:SHOWN]}
        ended = [key for key in self._lines if key not in running]
        for record in [*sets.filter(pk__in=ended).order_by("id"), *running.values()]:
            line = as_line(progress_of(record), record.name or str(record.pk))
            if self._lines.get(record.pk) != line:
                sys.stdout.write(f"{line}\n")
            self._lines[record.pk] = line
        for key in ended:
            del self._lines[key]
        sys.stdout.flush()
        return INTERVAL

    def sleep(self, timeout: Seconds) -> None:
        """Wait for the next turn, or the last one."""
        self._is_last.wait(timeout)
