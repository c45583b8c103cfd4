"""Wake-ups: hints that work is waiting. Losing one costs latency, never work."""

from __future__ import annotations

import contextlib
import logging
import os
import select
from collections.abc import Iterable
from typing import Final

from django.db import connections, transaction

from . import redis
from .calls import Seconds
from .conf import current
from .store.contract import Bell, Listener, Store

logger = logging.getLogger("django_tasksets")


class LocalBell:
    """Wakes one thread of this process that waits in `select`; safe to ring from any thread."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """The end that becomes readable."""
        return self._reader

    def ring(self) -> None:
        """Wake the waiter, now or when it next waits. Rings add up to one."""
        # A pipe that is full is full of rings that have not been heard yet.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def hush(self) -> bool:
        """Forget the rings so far; whether there were any."""
        # Once: where tasks compute, each call of the system may cost a thread its turn. Rings that
        # did not fit in are heard the next time.
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self._reader, 4096))
        return False


class PollListener(Listener):
    """Hears nothing but the bell: each wait ends when it is time to look."""

    def wait(self, timeout: Seconds, bell: Bell) -> bool:
        select.select([bell], [], [], timeout)
        return False

    def close(self) -> None:
        """Nothing to give back."""


# How often to look, in poll intervals, where hints come and are seldom lost.
PATIENCE: Final = 5


def patience(store: Store) -> int:
    """After how many poll intervals to look for work of which no hint has told."""
    hears = store.hears and current().WAKEUPS != "off"
    return PATIENCE if hears or _over_redis(store) else 1


def listen(store: Store) -> Listener:
    """The best listener that there is for this thread, which has a dedicated connection."""
    if _over_redis(store):
        return redis.RedisListener()
    listener = None if current().WAKEUPS == "off" else store.listen()
    return listener or PollListener()


def can_wake(store: Store) -> bool:
    """Whether wake() does anything."""
    return _over_redis(store) or is_by_notify(store)


def is_by_notify(store: Store) -> bool:
    """Whether it is the database that wakes workers."""
    return store.can_notify() and current().WAKEUPS != "off" and not _over_redis(store)


def wake(store: Store, queues: Iterable[str]) -> None:
    """Wake workers that wait for one of the queues, on other hosts too; outside a transaction.

    Raises the database's errors, where it is the database that wakes them.
    """
    if _over_redis(store):
        redis.publish()
    elif is_by_notify(store):
        store.notify(queues)


def _over_redis(store: Store) -> bool:
    """Whether hints go over Redis: that is asked for, or there is it and nothing else."""
    settings = current()
    is_asked = settings.WAKEUPS == "redis" or (settings.WAKEUPS == "auto" and not store.hears)
    return is_asked and settings.REDIS is not None


class _WakeUp:
    """What is called on commit. A class of its own, so that a second one can be avoided."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # By this name Django logs that it failed; without one the commit would seem to have.
        self.__qualname__ = type(self).__qualname__
        self.queues: set[str] = set()

    def __call__(self) -> None:
        wake(self.store, self.queues)


def wake_on_commit(store: Store, queues: Iterable[str]) -> None:
    """Wake workers that wait for one of the queues once the current transaction commits: with one
    hint for each transaction, and none if there are no queues."""
    names = set(queues)
    if not names or not can_wake(store):
        return
    for _, registered, *_ in connections[store.alias].run_on_commit:
        if isinstance(registered, _WakeUp):
            registered.queues.update(names)
            return
    wake_up = _WakeUp(store)
    wake_up.queues.update(names)
    transaction.on_commit(wake_up, using=store.alias, robust=True)
