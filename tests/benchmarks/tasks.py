"""The tasks that are measured; found by autodiscovery, since this package is an installed app."""

from __future__ import annotations

import asyncio
import time

from django_tasksets import TaskSetResult, task


@task
def add(x: int, y: int) -> int:
    """Next to nothing."""
    return x + y


@task
def total(numbers: list[int]) -> int:
    """The callback of a set of add()."""
    return sum(numbers)


@task
def stamp() -> float:
    """When it began to execute."""
    return time.time()


@task
def nap(seconds: float) -> None:
    """Waits, as for the answer of another server."""
    time.sleep(seconds)


@task
async def anap(seconds: float) -> None:
    """Waits in the event loop."""
    await asyncio.sleep(seconds)


@task
def spin(loops: int) -> int:
    """Keeps a core busy."""
    number = 1
    for _ in range(loops):
        number = number * 1103515245 % 2147483647
    return number


@task
def finished(result: TaskSetResult) -> None:
    """The callback of a set whose results nobody needs at once."""


@task
def gathered(numbers: list[int]) -> float:
    """When the callback of a set began to execute."""
    return time.time()
