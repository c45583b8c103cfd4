"""Database connections in a worker process: the users' and our own, which never mix.

Each of our threads that keeps books has a dedicated connection. User code (tasks, hooks, receivers
of signals) runs on its thread's ordinary ones, and is cleaned up after.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from django.db import Error, InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from ..calls import Seconds
from ..store import get_store
from ..store.contract import Store
from ..store.private import REUSED_FOR, private_connection

logger = logging.getLogger("django_tasksets")

T = TypeVar("T")

RETRY_EVERY: Final[Seconds] = 1.0

_this_thread = threading.local()


@receiver(connection_created)
def _note_connection(sender: Any, **_: Any) -> None:
    _this_thread.has_connected = True


def has_connected() -> bool:
    """Whether this thread may have open connections."""
    return getattr(_this_thread, "has_connected", False)


def next_of(jobs: queue.SimpleQueue[T], timeout: Seconds | None = None) -> T:
    """The next job of this thread; while there is none for long, it holds no connection.

    Raises queue.Empty after the timeout, if there is one; it is not for waits so long that the
    connection should be let go of.
    """
    if timeout is not None:
        return jobs.get(timeout=timeout)
    if has_connected():
        try:
            return jobs.get(timeout=REUSED_FOR)
        except queue.Empty:
            for connection in connections.all(initialized_only=True):
                drop(connection.alias)
            _this_thread.has_connected = False
    return jobs.get()


def clean_up() -> None:
    """Leave this thread's connections as user code should find them; to be called before and after.

    What is broken or too old is closed. A transaction that was left open is rolled back: everything
    that followed would have gone into it, and have been lost.
    """
    # Tasks that never ask a database need not pay for looking.
    if not has_connected():
        return
    connection: Any
    for connection in connections.all(initialized_only=True):
        try:
            if connection.in_atomic_block:
                logger.error("a transaction was left open, rolled back db=%r", connection.alias)
                drop(connection.alias)
            else:
                was_used = connection.health_check_done
                connection.close_if_unusable_or_obsolete()
                if was_used:
                    # Now, and not only when it is next used: a task may have closed it behind
                    # Django's back.
                    connection.close_if_health_check_failed()
                    connection.health_check_done = False
                forget_queries(connection)
        except Exception as error:  # noqa: BLE001  some drivers will not close what is closed
            logger.warning("connection dropped db=%r error=%r", connection.alias, error)
            drop(connection.alias)


def drop(alias: str) -> None:
    """Close this thread's connection, whatever state it is in; the next use makes a new one."""
    with suppress(Exception):
        connections[alias].close()
    with suppress(AttributeError):
        del connections[alias]


def forget_queries(connection: BaseDatabaseWrapper) -> None:
    """Forget the queries that Django notes while DEBUG is on: elsewhere each request does."""
    if connection.queries_logged:
        connection.queries_log.clear()


def wait_for_store(alias: str) -> None:
    """Learn which store that is, however long the database is away; to be done before forks, which
    then know it. Of MySQL and MariaDB only the server can tell what it can do, and a process that
    is started while it is away could not ask."""
    while True:
        try:
            get_store(alias)
        except Error as error:
            logger.warning("worker waits for the database error=%r", error)
            time.sleep(RETRY_EVERY)
        else:
            return


@contextmanager
def dedicated(store: Store) -> Iterator[None]:
    """A dedicated connection for this thread, and after it an ordinary one again."""
    drop(store.alias)
    try:
        store.dedicate()
        yield
    finally:
        drop(store.alias)


class Apart:
    """The connection on which a process reads what callbacks are to be given.

    It is one for all threads, and no user code has it: so it is kept for as long as the process
    lives, on SQLite too, and need not be asked before each use whether it is still there.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._lock = threading.Lock()
        self._connection: BaseDatabaseWrapper | None = None

    def __call__(self, read: Callable[[], T]) -> T:
        """What `read` returns; once more, on a new connection, if the one that there is has gone
        since it was last used."""
        with self._lock:
            theirs = connections[self._alias]
            try:
                if self._connection is not None:
                    with suppress(OperationalError, InterfaceError):
                        return self._on(self._connection, read)
                    with suppress(Exception):
                        self._connection.close()
                self._connection = private_connection(self._alias)
                self._connection.inc_thread_sharing()
                return self._on(self._connection, read)
            finally:
                connections[self._alias] = theirs

    def _on(self, connection: BaseDatabaseWrapper, read: Callable[[], T]) -> T:
        connections[self._alias] = connection
        try:
            return read()
        finally:
            forget_queries(connection)
