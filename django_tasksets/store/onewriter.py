"""Among the threads of one process: whose turn it is to write to a file that has one writer."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

# For how long a thread waits for its turn, in seconds: then it tries without. Whoever has it may
# wait for another process, and each has its own say in how long it waits for that.
PATIENCE: Final = 1.0
# How long a thread that executes makes way, in seconds.
PACE: Final = 0.05


class OneWriter:
    """SQLite has whoever finds its lock taken sleep, a little longer each time, and look again: so
    it is often free while all sleep. Threads that wait for each other are woken instead."""

    def __init__(self) -> None:
        self._renew()
        # A task may fork while another thread has one of them, which nobody would release there.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        # One that knows its owner: a soft time limit may end the wait at any moment, also between
        # the end of it and whatever we would have noted about it.
        self._next = threading.RLock()
        """Held by the thread that has SQLite's lock, or is the next to have it."""
        self._writing = threading.Lock()
        """Held by the thread that has it."""

    @contextmanager
    def turn(self) -> Iterator[Callable[[], None]]:
        """In the block, this thread may try to get SQLite's lock; until it calls what it is given,
        which it should as soon as it has let go of that."""
        turn = self._next
        is_over = False

        def end() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                # It is not ours if we have waited in vain.
                with suppress(RuntimeError):
                    turn.release()

        try:
            turn.acquire(timeout=PATIENCE)
            yield end
        finally:
            end()

    def writing(self) -> AbstractContextManager[bool]:
        """In the block, this thread has SQLite's lock."""
        return self._writing

    def pace(self) -> None:
        """Make way for a thread that has SQLite's lock. A statement lets go of the interpreter, and
        threads that execute would keep it for a while: in which this process can write no more,
        and others cannot begin to."""
        writing = self._writing
        if writing.locked() and writing.acquire(timeout=PACE):
            writing.release()
