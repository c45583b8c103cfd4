"""The thread that tells others what was recorded."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Final

from ..announcing import Announcer
from ..calls import Seconds
from ..control import revoke_rest
from ..recording import Recorded
from ..store.contract import Store
from .connections import clean_up, next_of
from .load import Load

logger = logging.getLogger("django_tasksets")

# A set that has finished is announced at once. That this was done is noted a little later, for all
# sets together, and not while their callbacks wait for the database.
ACKNOWLEDGE_WITHIN: Final[Seconds] = 0.2


class Announcements(threading.Thread):
    """Sends signals off the recorder's thread: receivers are user code, and may be slow."""

    def __init__(self, store: Store, load: Load) -> None:
        super().__init__(name="announcer", daemon=True)
        self._store = store
        self._load = load
        self._queue: queue.SimpleQueue[Recorded | None] = queue.SimpleQueue()
        self._announcer = Announcer(store)
        self._due_at = 0.0

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
        is_over = False
        while not is_over:
            try:
                recorded = next_of(self._queue, self._until_acknowledgement())
                is_over = recorded is None
            except queue.Empty:
                recorded = None
            if recorded is not None:
                self._tell(recorded)
            if is_over or self._until_acknowledgement() == 0:
                self._acknowledge()

    def _tell(self, recorded: Recorded) -> None:
        was_due = self._announcer.has_to_acknowledge
        try:
            clean_up()
            for taskset_id in recorded.settled.over_limit:
                revoke_rest(self._store, taskset_id)
            self._announcer.send(recorded)
        except Exception:
            # The sweep takes it up again.
            logger.exception("not announced")
        finally:
            clean_up()
            self._load.has_told(len(recorded.written))
            self._load.followed_up()
        if not was_due:
            self._due_at = time.monotonic() + ACKNOWLEDGE_WITHIN

    def _until_acknowledgement(self) -> Seconds | None:
        """How long until what was sent is to be acknowledged; None if nothing is."""
        if not self._announcer.has_to_acknowledge:
            return None
        return max(0.0, self._due_at - time.monotonic())

    def _acknowledge(self) -> None:
        try:
            self._announcer.acknowledge()
        except Exception:
            logger.exception("announcements not acknowledged")
        finally:
            clean_up()
