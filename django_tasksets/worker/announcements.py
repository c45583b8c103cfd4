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
from .connections import clean_up, next_of
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

    def run(self) -> None:
        """Tell until told to stop."""
        while (recorded := next_of(self._queue)) is not None:
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
