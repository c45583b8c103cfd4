"""The tasks that are measured; found by autodiscovery, since this package is an installed app."""

from __future__ import annotations

import time

from django_tasksets import task


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
def gathered(numbers: list[int]) -> float:
    """When the callback of a set began to execute."""
    return time.time()
