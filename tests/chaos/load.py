"""Work to be disturbed, and the wait for its end."""

from __future__ import annotations

import time

from django_tasksets import TaskSet, TaskSetResult, subtask
from django_tasksets.models import SubtaskRecord
from tests.chaos import scale
from tests.chaos.tasks import collect, square, tell
from tests.workers.harness import Worker, wait_until


def squares(members: int, longest: float = 0.05) -> list[subtask]:
    """Calls whose results can be foretold; each takes up to `longest` seconds."""
    return [square.subtask((number, longest)) for number in range(members)]


def apply(calls: list[subtask], queue: str | None = None) -> TaskSetResult:
    """One set with a callback for every end."""
    options = {"queue": queue} if queue else {}
    return TaskSet(
        calls,
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
    wait_until(lambda: not unfinished.exists(), f"the end of all, seed {scale.seed}", limit)
    return time.monotonic() - began


def stop_all(*workers: Worker) -> None:
    """End them in order; each must be able to."""
    for worker in workers:
        wait_until(worker.children, "its first child")
    assert [worker.stop() for worker in workers] == [0] * len(workers)
