"""What a subtask costs in Python, step by step, in batches as they form under load: the time of
this process on a core. On SQLite the database is in it, on others it is not."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import lab

BATCH = 1_000
BATCHES = 10
T = TypeVar("T")


class Steps:
    """The time that each step took, in microseconds for each subtask."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}

    def time(self, step: str, work: Callable[[], T]) -> T:
        """Do the step for a batch."""
        began = time.process_time()
        result = work()
        taken = (time.process_time() - began) / BATCH * 1_000_000
        self.taken.setdefault(step, []).append(taken)
        return result


def measure(title: str, rounds: int) -> Iterator[lab.Figure]:
    steps = Steps()
    for _ in range(rounds):
        for _ in range(BATCHES):
            one_batch(steps)
    for step, taken in steps.taken.items():
        yield lab.Figure(step, title, f"{statistics.median(taken):.1f} µs")


def one_batch(steps: Steps) -> None:
    """A set, from its enqueueing to the record of its members, by the functions that workers call.
    What their threads do beside that (queues, the board, the load) is not in it."""
    from django_tasksets import TaskSet
    from django_tasksets.execution import Execution, Worker, call, conclude, prepare
    from django_tasksets.ids import new_id
    from django_tasksets.maintenance import register
    from django_tasksets.recording import record
    from django_tasksets.store import get_store
    from tests.benchmarks.tasks import add

    store = get_store()
    store.dedicate()
    worker = Worker(store=store, id=new_id())
    register(store, worker.id, queues=[], pid=os.getpid())
    calls = (add.subtask((i, i)) for i in range(BATCH))
    steps.time("enqueue", lambda: TaskSet(calls).apply_async())
    rows = steps.time("claim", lambda: store.claim(worker.id, [], BATCH))
    assert len(rows) == BATCH
    found = steps.time("prepare", lambda: [prepare(worker, row) for row in rows])
    prepared = [one for one in found if isinstance(one, Execution)]
    attempts = steps.time("call", lambda: [call(store, one) for one in prepared])
    began = time.monotonic()
    pairs = list(zip(prepared, attempts, strict=True))
    outcomes = steps.time("conclude", lambda: [conclude(worker, *one, began) for one in pairs])
    recorded = steps.time("record", lambda: record(store, worker.id, outcomes))
    assert len(recorded.written) == BATCH


if __name__ == "__main__":
    lab.main(measure, rounds=1)
