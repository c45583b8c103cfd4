"""Wake-ups by watching an SQLite file for the commits of others."""

from __future__ import annotations

import ctypes
import os
import select
import sys
import time
from pathlib import Path
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from ..calls import Seconds
from .contract import Bell, Listener

# From Linux's inotify(7).
IN_NONBLOCK: Final = os.O_NONBLOCK
IN_CLOEXEC: Final = os.O_CLOEXEC
IN_MODIFY: Final = 0x2
EVENTS: Final = 65_536


class FileListener(Listener):
    """Looks for commits of others: `data_version` changes with each, at 4 µs a look. It looks when
    the kernel tells of a write to the file or its log; elsewhere, and now and then, unasked."""

    # Between two looks, and after one that has found something: workers that write all the time are
    # not woken by each write.
    INTERVAL: Final = 0.004
    # Where the kernel tells: without being told, for a file may be shared in ways of which it does
    # not; and after it has told, which it does a moment before the commit can be seen: at first
    # after so long, and each time after twice as long.
    UNASKED: Final = 0.5
    ALERT: Final = 0.0002
    ALERT_FOR: Final = 0.01

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        connection.ensure_connection()
        self._connection: Any = connection.connection
        self._watch = _watch(Path(connection.settings_dict["NAME"]).parent)
        self._seen = self._version()
        self._alert_until = self._heard = 0.0
        self._alert = self.ALERT
        self._was_told, self._deaf_for = False, self.ALERT

    def _version(self) -> int:
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def wait(self, timeout: Seconds, bell: Bell) -> bool:
        deadline = time.monotonic() + timeout
        pause = self._heard + self.INTERVAL - time.monotonic()
        if pause > 0 and select.select([bell], [], [], min(timeout, pause))[0]:
            return False
        while True:
            version = self._version()
            if version != self._seen:
                self._seen, self._heard = version, time.monotonic()
                self._deaf_for = self.ALERT
                return True
            left = deadline - time.monotonic()
            if left <= 0 or self._rest(left, bell):
                return False

    def _rest(self, timeout: Seconds, bell: Bell) -> bool:
        """Wait until it is time to look again; whether the bell has rung."""
        ends: list[Any] = [bell]
        if self._watch is None:
            timeout = min(timeout, self.INTERVAL)
        elif self._was_told:
            # A large transaction is told of with each page that it writes, and others may write to
            # other files beside this one.
            timeout = min(timeout, self._deaf_for)
            self._deaf_for = min(2 * self._deaf_for, self.INTERVAL)
            self._was_told = False
        else:
            ends.append(self._watch)
            timeout = min(timeout, self._until_next_look())
        readable = select.select(ends, [], [], timeout)[0]
        if self._watch is not None and self._watch in readable:
            os.read(self._watch, EVENTS)
            self._was_told = True
            now = time.monotonic()
            if now > self._alert_until:
                self._deaf_for = self.ALERT
            self._alert_until = now + self.ALERT_FOR
            self._alert = self.ALERT
        return bell in readable

    def _until_next_look(self) -> Seconds:
        if time.monotonic() >= self._alert_until:
            return self.UNASKED
        self._alert *= 2
        return self._alert

    def close(self) -> None:
        if self._watch is not None:
            os.close(self._watch)
            self._watch = None


def _watch(directory: Path) -> int | None:
    """A descriptor that becomes readable when a file in the directory is written to: the log comes
    and goes. None where there is no such thing."""
    if not sys.platform.startswith("linux") or not directory.is_dir():
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(directory), IN_MODIFY) < 0:
        os.close(descriptor)
        return None
    return descriptor
