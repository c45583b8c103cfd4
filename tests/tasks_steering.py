"""Tasks that fail until they are mended."""

from __future__ import annotations

import uuid
from typing import Any

from django_tasksets import task
from django_tasksets.steering import pause_set

executed: list[int] = []
noted: list[str] = []
_broken = [True]


def reset() -> None:
    """As before the test."""
    executed.clear()
    noted.clear()
    _broken[0] = True


def mend() -> None:
    """From now on nothing fails."""
    _broken[0] = False


@task
def flaky(index: int, kind: str) -> int:
    executed.append(index)
    if kind == "bad" and _broken[0]:
        raise ValueError(index)
    if kind == "worse" and _broken[0]:
        raise KeyError(index)
    return index


@task
def flaky_callback(results: list[int]) -> int:
    if _broken[0]:
        raise ValueError
    return len(results)


@task
def note(first: Any, what: str) -> None:
    noted.append(what)


@task(bind=True, default_retry_delay=0)
def pauses_its_set(self: Any) -> str:
    if self.request.retries == 0:
        pause_set(uuid.UUID(self.request.taskset))
        self.retry()
    return "done"
