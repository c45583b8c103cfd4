"""The process that keeps the others alive in the database.

Its main thread only listens to the supervisor. The pulse gives heartbeats and promotes what is due,
the rescuer gives back what the dead held, the sweeper repairs, the lookout looks for work of which
no hint has told, and the display shows how the sets stand if that was asked for: each has a thread
and a connection of its own, so that one that takes long holds up none of the others.
"""

from __future__ import annotations

import json
import logging
import os
import select
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from ..calls import Seconds
from ..conf import current
from ..store import get_store
from .board import Board
from .display import Display
from .lookout import Lookout
from .options import WorkerOptions
from .pulse import Pulse
from .upkeep import Rescuer, Sweeper

logger = logging.getLogger("django_tasksets")

LOOK: Final[Seconds] = 1.0
# A statement that takes at least this long may take for ever: its connection is dead.
STUCK: Final[Seconds] = 5.0
# How long a heart outlives its supervisor, besides the grace period: its workers are ending.
AFTERLIFE: Final[Seconds] = 5.0


def run_heart(
    options: WorkerOptions,
    board: Board,
    messages: Any,
    supervisors_end: Any,
    in_child: Callable[[dict[int, Any]], int],
) -> None:
    """The process's main function."""
    supervisors_end.close()
    lifeline = in_child({})
    try:
        code = Heart(options, board, messages).run(lifeline)
    except BaseException:
        logger.exception("heart failed")
        code = 1
    logging.shutdown()
    os._exit(code)


class Heart:
    """Told by the supervisor who lives and who died; ends when the supervisor's pipe does."""

    def __init__(self, options: WorkerOptions, board: Board, messages: Any) -> None:
        store = get_store(options.alias)
        self._options = options
        self._messages = messages
        self._pulse = Pulse(store, options, board)
        self._rescuer = Rescuer(store, board, self._pulse)
        self._vital = (self._pulse, self._rescuer, Lookout(store, options, board))
        self._sweeper = Sweeper(store)
        self._display = Display(store) if options.progress else None

    def run(self, lifeline: int) -> int:
        """Listen until nobody speaks any more; returns the exit code."""
        for thread in (*self._vital, self._sweeper, self._display):
            if thread is not None:
                thread.start()
        ends: list[Any] = [self._messages, lifeline]
        until = float("inf")
        while time.monotonic() < until:
            readable = select.select(ends, [], [], LOOK)[0]
            if lifeline in readable:
                # The workers end now, and hold the pipe open until they have. So may others
                # whom they have forked, but not for ever.
                ends = [self._messages]
                until = time.monotonic() + self._options.grace + AFTERLIFE
            if self._messages in readable and not self._hear():
                break
            if self._is_stuck():
                return 1
        self._rescuer.stop()
        if self._display is not None:
            self._display.stop()
        return 0

    def _hear(self) -> bool:
        """Take the messages that are there; False once the supervisor has closed its end."""
        try:
            while self._messages.poll():
                message = json.loads(self._messages.recv_bytes())
                alive = message["alive"].items()
                self._pulse.workers = {uuid.UUID(key): place for key, place in alive}
                if "lost" in message:
                    self._rescuer.bury(message)
        except (EOFError, OSError):
            return False
        return True

    def _is_stuck(self) -> bool:
        """A thread waits for its connection and will not hear from it; a new heart will."""
        now, limit = time.monotonic(), max(STUCK, current().LEASE / 2)
        for thread in self._vital:
            since = thread.since
            if not thread.is_alive() or (since is not None and now - since > limit):
                logger.error("heart is stuck thread=%s", thread.name)
                return True
        return False
