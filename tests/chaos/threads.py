"""Users who go on doing something, each in a thread and on a connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from django.db import connections

LIMIT: Final = 90


class Thread(threading.Thread):
    """Repeats something until it is told to stop; keeps what it raised."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self._work = work
        self._stopping = threading.Event()
        self.turns = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._work()
                self.turns += 1
        except BaseException as error:  # noqa: BLE001  raised again by end()
            self.error = error
        finally:
            connections.close_all()

    def end(self) -> None:
        self._stopping.set()
        self.join(LIMIT)
        if self.error is not None:
            raise self.error
