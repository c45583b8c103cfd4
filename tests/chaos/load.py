"""Work to be disturbed, and the wait for its end."""

from __future__ import annotations

import time

import pytest

from django_tasksets import TaskSet, TaskSetResult, subtask
from django_tasksets.models import SubtaskRecord
from tests.chaos import scale
from tests.chaos.tasks import collect, square, tell
from tests.workers.harness import Worker, wait_until


def squares(members: int, longest: float = 0.05) -> list[subtask]:
    """Calls whose results can be foretold; each takes up to `longest` seconds."""
    return [square.subtask((number, longest)) for number in range(members)]


def apply(calls: list[subtask], queue: str | None = None) -> TaskSetResult:
    """One set with a callback for every end, all of it in that queue."""
    options = {"queue": queue} if queue else {}
    return TaskSet(
        [subtask({**call, "options": call.options | options}) for call in calls],
        on_success=collect.subtask(options=options),
        on_failure=tell.subtask(options=options),
        on_finish=tell.subtask(options=options),
    ).apply_async()


def apply_many(sets: int, members: int, longest: float = 0.05) -> list[TaskSetResult]:
    """Many sets of squares."""
    return [apply(squares(members, longest)) for _ in range(sets)]


def wait_for_the_end(limit: float) -> float:
    """Wait until nothing is unfinished; how long that took, in seconds."""
    began = time.monotonic()
    unfinished = SubtaskRecord.objects.unfinished()
    while unfinished.exists():
        if time.monotonic() > began + limit:
            rows = unfinished.values_list("role", "status", "queue_name", "taskset__status")[:5]
            pytest.fail(f"Not at an end after {limit} s, seed {scale.seed}: {list(rows)}")
        time.sleep(0.02)
    return time.monotonic() - began


def stop_all(*workers: Worker) -> None:
    """End them in order; each must be able to."""
    for worker in workers:
        wait_until(worker.children, "its first child")
    assert [worker.stop() for worker in workers] == [0] * len(workers)
