"""Where async tasks are awaited: contexts, and the threads behind them."""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from typing import Final

from asgiref.sync import ThreadSensitiveContext, sync_to_async

from ..calls import Seconds
from .connections import clean_up

# How soon after a task has ended its connections are looked at: once for all that end by then.
TIDY_AFTER: Final[Seconds] = 0.1


class Rooms:
    """What tasks in one room call by `sync_to_async` runs in one thread, with its connections.

    Without rooms it would be one thread for all tasks; with one for each, hundreds of connections.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self._loop = loop
        self._size = size
        self._contexts: list[Context] = []
        self._soiled = [False] * size

    def open(self) -> None:
        """Make the rooms; in the loop's thread, before it runs."""
        self._contexts = [self._loop.run_until_complete(_room()) for _ in range(self._size)]

    def enter(self, slot: int) -> Context:
        """A context for the task in that slot: nothing in it is left from another task."""
        return self._contexts[slot % self._size].copy()

    def leave(self, slot: int) -> None:
        """Have the room tidied up soon."""
        room = slot % self._size
        if not self._soiled[room]:
            self._soiled[room] = True
            self._loop.call_later(TIDY_AFTER, self._tidy, room)

    def _tidy(self, room: int) -> None:
        self._soiled[room] = False
        self._loop.create_task(sync_to_async(clean_up)(), context=self._contexts[room].copy())


async def _room() -> Context:
    await ThreadSensitiveContext().__aenter__()  # type: ignore[no-untyped-call]
    return copy_context()
