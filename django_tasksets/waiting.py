"""How all waiting is done, with and without asyncio.

What waits is written once, as a generator of steps: a list is values that are there, a number is
the seconds to sleep before the next look. `drive` makes it an iterator, `adrive` an async one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import TypeAlias, TypeVar

from django.db import connections

from . import conf
from .calls import Seconds
from .context import current_request
from .exceptions import ResultTimeout, WouldDeadlock
from .twins import in_thread

T = TypeVar("T")

Steps: TypeAlias = Iterator[list[T] | float]

SHORTEST_PAUSE: Seconds = 0.005
MIN_REST = 5
"""A pause is so many times as long as the look before it took, unless the interval is shorter."""


class Patience:
    """How long one call still waits: makes its pauses, and ends it when waiting is over."""

    def __init__(self, *, timeout: Seconds | None, interval: Seconds, what: str) -> None:
        self._what = what
        self._timeout = timeout
        self._interval = max(interval, SHORTEST_PAUSE)
        self._pause = 0.0
        self._looked_at = time.monotonic()
        self._deadline = None if timeout is None else self._looked_at + timeout

    @property
    def endless(self) -> bool:
        """No time limit was given."""
        return self._deadline is None

    def pause(self, *, progressed: bool = False) -> float:
        """The seconds to sleep before the next look; raises ResultTimeout or WouldDeadlock.

        Pauses grow up to the interval while nothing happens, and shrink while things do.
        """
        now = time.monotonic()
        left = float("inf") if self._deadline is None else self._deadline - now
        if left <= 0:
            raise ResultTimeout(f"{self._what} did not finish within {self._timeout} s; it goes on")
        _refuse_to_deadlock(self._what)
        self._pause = max(SHORTEST_PAUSE, self._pause * (0.5 if progressed else 1.5))
        self._pause = min(self._interval, self._pause)
        rest = min(self._interval, MIN_REST * (now - self._looked_at))
        seconds = min(left, max(self._pause, rest))
        self._looked_at = now + seconds
        return seconds


def _refuse_to_deadlock(what: str) -> None:
    request = current_request.get()
    if request is not None and not request.is_eager:
        raise WouldDeadlock(
            f"{what} is unfinished, and waiting for it inside a subtask occupies the worker that "
            "may be needed to finish it. Use a callback (on_success=) instead."
        )
    if connections[conf.current().DATABASE].in_atomic_block:
        raise WouldDeadlock(
            f"{what} is unfinished, and will not be seen to finish inside this open transaction. "
            "Use a callback (on_success=), or wait after the transaction; in a TestCase, call "
            "django_tasksets.testing.run_subtasks() first."
        )


def drive(steps: Steps[T]) -> Iterator[T]:
    """The values of `steps`, sleeping in this thread."""
    for step in steps:
        if isinstance(step, list):
            yield from step
        else:
            time.sleep(step)


async def adrive(steps: Steps[T]) -> AsyncIterator[T]:
    """The values of `steps`: looks in the thread of the connections, and sleeps here."""
    look = in_thread(_next)
    while (step := await look(steps)) is not None:
        if isinstance(step, list):
            for value in step:
                yield value
        else:
            await asyncio.sleep(step)


def first(steps: Steps[T]) -> T:
    """The first value of `steps`."""
    return next(drive(steps))


async def afirst(steps: Steps[T]) -> T:
    """See first()."""
    look = in_thread(_next)
    while not isinstance(step := await look(steps), list):  # noqa: ASYNC110  it is in a database
        await asyncio.sleep(step or 0)
    return step[0]


def _next(steps: Steps[T]) -> list[T] | float | None:
    return next(steps, None)
