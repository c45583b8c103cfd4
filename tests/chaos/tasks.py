"""Tasks whose results can be foretold, and which write down that they were executed."""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any, Final

from django_tasksets import Task, TaskSetResult, task
from tests.chaos import poison as poison  # Workers find tasks in modules of this name.
from tests.workers.tasks import LIMIT, is_first, is_told, note

LATER: Final = 0.002
"""What square() is called with by square_later()."""


def squared(number: int) -> int:
    """What square() and its likes return."""
    return number * number


@task(bind=True)
def square(self: Task, number: int, longest: float = 0.05) -> int:
    """Takes 1 ms to `longest` seconds."""
    note("begin", self.request.id)
    time.sleep(random.uniform(min(0.001, longest), longest))
    note("end", self.request.id)
    return squared(number)


def at_length(number: int) -> str:
    """What write_at_length() returns."""
    return f"{number:016000}"


@task(bind=True)
def write_at_length(self: Task, number: int, longest: float) -> str:
    """Takes up to `longest` seconds, and room in the database."""
    note("begin", self.request.id)
    time.sleep(random.uniform(min(0.001, longest), longest))
    note("end", self.request.id)
    return at_length(number)


@task(bind=True)
def square_when_told(self: Task, number: int, name: str) -> int:
    """Goes on once it is told."""
    note("begin", os.getpid(), self.request.id)
    until = time.monotonic() + LIMIT
    while not is_told(name) and time.monotonic() < until:
        time.sleep(0.01)
    note("end", self.request.id)
    return squared(number)


@task(bind=True)
async def asquare(self: Task, number: int, longest: float = 0.05) -> int:
    """The same, awaited."""
    note("begin", self.request.id)
    await asyncio.sleep(random.uniform(min(0.001, longest), longest))
    note("end", self.request.id)
    return squared(number)


@task(bind=True, max_retries=5, retry_backoff=0.05, retry_jitter=False)
def square_at_last(self: Task, number: int, failures: int = 1) -> int:
    """Asks to be retried so often before it succeeds."""
    note("begin", self.request.id)
    if self.request.retries < failures:
        raise self.retry(countdown=0.05)
    note("end", self.request.id)
    return squared(number)


@task(bind=True)
def fail_once(self: Task, number: int) -> int:
    """Fails when it is executed for the first time."""
    note("begin", self.request.id)
    if is_first(str(self.request.id)):
        raise ValueError(number)
    note("end", self.request.id)
    return squared(number)


@task(bind=True)
def square_and_add(self: Task, number: int, more: int = 1) -> int:
    """Adds so many more members to its own set."""
    note("begin", self.request.id)
    assert self.request.taskset is not None
    result = TaskSetResult(self.request.taskset)
    for other in range(more):
        result.add(square.subtask((number + other + 1, 0.0)))
    note("end", self.request.id)
    return squared(number)


@task(bind=True)
def square_later(self: Task, number: int, countdown: float) -> int:
    """Has the same be done again, by another subtask, after so many seconds."""
    note("begin", self.request.id)
    square.apply_async((number, LATER), countdown=countdown)
    note("end", self.request.id)
    return squared(number)


@task(bind=True)
def square_and_grow(self: Task, number: int, depth: int) -> int:
    """Adds a square and one of its own kind to its own set, which do so in turn, down to 0."""
    note("begin", self.request.id)
    if depth:
        assert self.request.taskset is not None
        more = [square_and_grow.subtask((number + 1, depth - 1)), square.subtask((depth, 0.0))]
        TaskSetResult(self.request.taskset).add(more)
    note("end", self.request.id)
    return squared(number)


@task(bind=True)
def collect(self: Task, results: list[int]) -> list[int]:
    """The callback of a success: it returns what it was given."""
    note("begin", self.request.id)
    note("end", self.request.id)
    return results


@task(bind=True)
def sum_up(self: Task, results: list[int]) -> int:
    """The callback of the success of many: it returns their sum."""
    note("begin", self.request.id)
    note("end", self.request.id)
    return sum(results)


@task(bind=True)
def tell(self: Task, result: TaskSetResult) -> str:
    """The callback of a failure, and of every end."""
    note("begin", self.request.id)
    note("end", self.request.id)
    return result.id


SQUARES: Final = (
    square,
    asquare,
    square_when_told,
    square_at_last,
    square_later,
    square_and_add,
    square_and_grow,
    fail_once,
)
RETURNS: Final[dict[str, Any]] = {
    **dict.fromkeys((one.name for one in SQUARES), squared),
    write_at_length.name: at_length,
}
"""By a task's name: what it returns for its first argument."""
