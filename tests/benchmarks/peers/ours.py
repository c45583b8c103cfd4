"""This package, and its hand-written floor: run with the kind of database, and "floor" for that."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests import services
from tests.benchmarks import lab
from tests.benchmarks.floor import floor
from tests.benchmarks.peers.contender import checked, serve

BATCH = 500


def run(count: int) -> tuple[float, float]:
    """One set with a callback."""
    from django_tasksets import TaskSet
    from tests.benchmarks.tasks import add, total

    calls = (add.subtask((i, i)) for i in range(count))
    result = TaskSet(calls, on_success=total.subtask()).apply_async()
    submitted = time.time()
    callback = result.callbacks["on_success"]
    lab.wait_until(callback.ready, pause=0.1)
    checked(callback.get(), count)
    record = callback.record
    assert record is not None
    assert record.started_at is not None
    return submitted, record.started_at.timestamp()


def main(kind: str, *, is_floor: bool) -> None:
    """Take runs from stdin."""
    with lab.scratch_database(kind):
        if not is_floor:
            with lab.worker():
                serve(run, prepare=lab.empty_sets)
            return
        loop = floor(kind, os.environ[services.DATABASE_NAME], BATCH)

        def run_floor(count: int) -> tuple[float, float]:
            began = time.time()
            timing = loop.run(count)
            return began + timing.enqueue, began + timing.whole

        serve(run_floor, prepare=loop.empty)
        loop.close()


if __name__ == "__main__":
    main(sys.argv[1], is_floor=sys.argv[2:] == ["floor"])
