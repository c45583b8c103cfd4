"""The thread that tells others what was recorded."""

from __future__ import annotations

import logging
import queue
import threading

from ..announcing import Announcer
from ..calls import Seconds
from ..control import revoke_rest
from ..recording import Recorded
from ..store.contract import Store
from ..store.private import REUSED_FOR
from .connections import clean_up, hang_up, has_connected
from .load import Load

logger = logging.getLogger("django_tasksets")


class Announcements(threading.Thread):
    """Sends signals off the recorder's thread: receivers are user code, and may be slow."""

    def __init__(self, store: Store, load: Load) -> None:
        super().__init__(name="announcer", daemon=True)
        self._store = store
        self._load = load
        self._queue: queue.SimpleQueue[Recorded | None] = queue.SimpleQueue()
        self._announcer = Announcer(store)

    def put(self, recorded: Recorded) -> None:
        """Tell of it soon."""
        self._load.will_tell(len(recorded.written))
        self._queue.put(recorded)

    def stop(self, timeout: Seconds) -> None:
        """Tell what is there, then end; returns when that is done, or takes too long."""
        self._queue.put(None)
        self.join(timeout)

    def _next(self) -> Recorded | None:
        if has_connected():
            try:
                return self._queue.get(timeout=REUSED_FOR)
            except queue.Empty:
                hang_up()
        return self._queue.get()

    def run(self) -> None:
        """Tell until told to stop."""
        while (recorded := self._next()) is not None:
            try:
                clean_up()
                for taskset_id in recorded.settled.over_limit:
                    revoke_rest(self._store, taskset_id)
                self._announcer.announce(recorded)
            except Exception:
                # The sweep takes it up again.
                logger.exception("not announced")
            finally:
                clean_up()
                self._load.has_told(len(recorded.written))
                self._load.followed_up()
