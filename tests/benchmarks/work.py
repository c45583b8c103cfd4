"""Tasks that do something: how close a worker comes to what the machine could do at best."""

from __future__ import annotations

import os
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import lab

AWAITED = 200
SPINS = 1000
NAPS = 400
CORES = os.cpu_count() or 1


def measure(title: str, rounds: int) -> Iterator[lab.Figure]:
    from tests.benchmarks.tasks import anap, nap, spin

    with lab.worker("--processes", "1", "--async-concurrency", str(AWAITED), processes=1):
        seconds = [run(anap.subtask((1.0,)), AWAITED) for _ in range(rounds)]
        yield lab.Figure(
            f"{AWAITED} awaited tasks of 1 s, one process",
            title,
            f"{lab.spread(seconds)} s",
            "≤ 1.5 s",
            statistics.median(seconds) <= 1.5,
        )
    with lab.worker():
        # At best: so many at once, each as long as it takes with nobody beside it.
        loops = calibrated()
        ratios = [run(spin.subtask((loops,)), SPINS) / alone(loops) for _ in range(rounds)]
        yield lab.Figure(
            f"{SPINS:,} tasks of 10 ms on a core, as so many times the ideal",
            title,
            lab.spread(ratios),
            "≤ 1.1",
            statistics.median(ratios) <= 1.1,
        )
        ideal = NAPS * 0.05 / (4 * CORES)
        ratios = [run(nap.subtask((0.05,)), NAPS) / ideal for _ in range(rounds)]
        yield lab.Figure(
            f"{NAPS} tasks that sleep for 50 ms in {4 * CORES} threads, times the ideal",
            title,
            lab.spread(ratios),
        )
        shares = [spread_out(0.3) for _ in range(rounds)]
        yield lab.Figure(
            f"{4 * CORES} tasks of 0.3 s after 10,000 short ones: begun within",
            title,
            f"{lab.spread(shares)} s of each other",
            "< 0.2 s",
            statistics.median(shares) < 0.2,
        )


def run(call: Any, count: int) -> float:
    """Seconds from apply_async() to the last end."""
    from django_tasksets import TaskSet

    lab.empty_sets()
    began = time.time()
    result = TaskSet(call for _ in range(count)).apply_async()
    # Who asks all the time would take a share of the cores that is not the worker's.
    lab.wait_until(result.ready, pause=0.2)
    record = result.record
    assert record is not None
    assert record.finished_at is not None
    return record.finished_at.timestamp() - began


def calibrated() -> int:
    """How many times to go round for 10 ms."""
    from tests.benchmarks.tasks import spin

    began = time.perf_counter()
    spin.run(1_000_000)
    return int(1_000_000 * 0.01 / (time.perf_counter() - began))


def alone(loops: int) -> float:
    """Seconds that the same takes in plain processes, one for each core, without any queue."""
    import multiprocessing

    from tests.benchmarks.tasks import spin

    context = multiprocessing.get_context("fork")
    share = SPINS // CORES

    def work() -> None:
        for _ in range(share):
            spin.run(loops)

    processes = [context.Process(target=work) for _ in range(CORES)]
    began = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return time.perf_counter() - began


def spread_out(seconds: float) -> float:
    """As many long tasks as there are threads, when short ones were claimed by the hundred before:
    how far apart the first and the last begin. A claim that took several for one thread would have
    them wait for each other."""
    from django_tasksets import TaskSet
    from django_tasksets.models import SubtaskRecord
    from tests.benchmarks.tasks import add, nap

    lab.empty_sets()
    lab.wait_until(TaskSet(add.subtask((1, 1)) for _ in range(10_000)).apply_async().ready)
    result = TaskSet(nap.subtask((seconds,)) for _ in range(4 * CORES)).apply_async()
    lab.wait_until(result.ready)
    rows = SubtaskRecord.objects.filter(taskset=uuid.UUID(result.taskset_id))
    starts = [moment for moment in rows.values_list("started_at", flat=True) if moment is not None]
    return (max(starts) - min(starts)).total_seconds()


if __name__ == "__main__":
    lab.main(measure, rounds=3)
