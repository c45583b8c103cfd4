"""How soon the interpreter is handed over, while somebody writes whom others wait for."""

from __future__ import annotations

import sys
import threading
from typing import Final

from ..calls import Seconds

# Who computes hands the interpreter over after this time; Python's own is 5 ms. Each change costs:
# where nobody else waits, as with a lock for each row, it is not worth it.
SOON: Final[Seconds] = 0.0005


class Handover:
    """For `with`: in the block, the threads of this process hand the interpreter over soon.

    A claim or a record needs it again after each answer of the database. Behind four threads that
    compute it would wait for up to 20 ms each time, and so long keep the lock that all need. More
    threads than one may be in the block at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._usual: Seconds = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._usual = sys.getswitchinterval()
                # The project's own stands if it is shorter.
                sys.setswitchinterval(min(SOON, self._usual))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                sys.setswitchinterval(self._usual)
