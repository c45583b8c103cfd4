"""The threads of ours that keep books: they outlive whatever the database does."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from django.db import Error, connections

from ..calls import Seconds
from ..store.contract import Store
from .connections import drop, forget_queries

logger = logging.getLogger("django_tasksets")

# How long to wait for a database that is away: doubled at each failure.
FIRST_DELAY: Final[Seconds] = 0.1
LAST_DELAY: Final[Seconds] = 5.0


class Bookkeeper(threading.Thread):
    """Takes its turn again and again, on a dedicated connection, until it is over.

    A turn that fails is logged; the next one has a new connection, and comes after a while.
    """

    def __init__(self, store: Store, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.store = store
        self.over = False
        self.since: float | None = None
        """time.monotonic() when the turn began that is being taken; None between turns."""
        self._is_connected = False

    def run(self) -> None:
        """Take turns; the contract of Thread."""
        delay = FIRST_DELAY
        while not self.over:
            self.since = time.monotonic()
            try:
                self._connect()
                pause = self.turn()
                delay = FIRST_DELAY
            except Error as error:
                logger.warning("%s waits for the database error=%r", self.name, error)
                pause = self._failed(delay)
            except Exception:
                logger.exception("%s failed, and goes on", self.name)
                pause = self._failed(delay)
            if not self._is_connected:
                delay = min(delay * 2, LAST_DELAY)
            self.since = None
            if pause > 0 and not self.over:
                self.sleep(pause)

    def turn(self) -> Seconds:
        """Do what is due; returns how long to sleep then."""
        raise NotImplementedError

    def sleep(self, timeout: Seconds) -> None:
        """Wait for the next turn."""
        time.sleep(timeout)

    def reconnected(self) -> None:
        """Called with a new connection before the first turn on it."""

    def _connect(self) -> None:
        if not self._is_connected:
            drop(self.store.alias)
            self.store.dedicate()
            self.reconnected()
            self._is_connected = True
        forget_queries(connections[self.store.alias])

    def _failed(self, delay: Seconds) -> Seconds:
        self._is_connected = False
        return delay
