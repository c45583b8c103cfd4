"""Tasks that tests of all kinds use; found by autodiscovery, since `tests` is an installed app."""

from __future__ import annotations

from typing import Any

from django_tasksets import Task, TaskSetResult, subtask, task


@task
def add(x: int, y: int, callback: Any = None) -> int:
    """The guide's own task: it passes its result on."""
    result = x + y
    if callback is not None:
        subtask(callback).delay(result)
    return result


@task
def echo(*args: Any, **kwargs: Any) -> Any:
    """What it was called with."""
    return [list(args), kwargs]


@task
def noop() -> None:
    """Nothing."""


@task
def total(numbers: list[int]) -> int:
    """The sum, for callbacks that get a list of results."""
    return sum(numbers)


@task
def describe(result: TaskSetResult, note: str = "") -> list[Any]:
    """What a callback that gets a set's handle sees of it."""
    return [result.id, str(result.status), note]


@task
def fail(message: str = "on purpose") -> None:
    """An exception of a class that is imported everywhere."""
    raise ValueError(message)


@task(bind=True, max_retries=2, default_retry_delay=0)
def retry_until(self: Task, enough: int) -> int:
    """Asks for retries until it has had enough."""
    if self.request.retries < enough:
        self.retry(countdown=0)
    return self.request.retries


@task(autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0)
def fail_always() -> None:
    """Is retried without asking."""
    raise ValueError("again")


@task
async def aadd(x: int, y: int) -> int:
    """An async task."""
    return x + y
