"""Sets of ten thousand to a million: what a subtask costs, in time, memory and on disk."""

from __future__ import annotations

import statistics
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import lab
from tests.benchmarks.memory import memory, reset_peak

COUNTS = {10_000: 10, 100_000: 3, 1_000_000: 1}
"""The sizes, and how often each is measured: what counts is the median."""
GROWTH = 1.15
CALLER = 100
WORKER = 120
SOON = 1.0


def measure(title: str, rounds: int) -> Iterator[lab.Figure]:
    from django_tasksets.models import SubtaskRecord

    costs: dict[int, float] = {}
    with lab.worker() as pid:
        for count, times in COUNTS.items():
            reset_peak()
            taken: list[float] = []
            with highest_of(pid) as peaks:
                for _ in range(times):
                    lab.empty_sets()
                    result, seconds, wait = run(count)
                    taken.append(seconds)
            seconds = statistics.median(taken)
            costs[count] = seconds / count * 1e6
            # What a process has in common with its parent is not counted twice: see memory().
            caller, worker = memory("VmHWM"), max(peaks)
            yield lab.Figure(
                f"{count:,} calls: time of each", title, f"{costs[count]:.0f} µs; {seconds:.1f} s"
            )
            met = caller < CALLER and worker < WORKER
            value = f"{caller:.0f} MB, {worker:.0f} MB"
            target = f"< {CALLER}, < {WORKER} MB"
            yield lab.Figure(
                f"{count:,} calls: memory of caller and worker", title, value, target, met
            )
            met = wait < SOON
            yield lab.Figure(
                f"{count:,} calls: from the last result to the callback's start",
                title,
                f"{wait:.2f} s",
                f"< {SOON:.0f} s",
                met,
            )
            # Of the database's whole file or table, with indexes.
            size = lab.size_on_disk(SubtaskRecord._meta.db_table) / count
            yield lab.Figure(f"{count:,} calls: on disk, of each", title, f"{size:,.0f} bytes")
    before = memory("VmRSS")
    reset_peak()
    began = time.monotonic()
    smallest, *_, largest = COUNTS
    assert sum(result.iterate()) == largest * (largest - 1)
    yield lab.Figure(
        f"{largest:,} results, iterated over",
        title,
        f"{time.monotonic() - began:.1f} s, +{memory('VmHWM') - before:.0f} MB",
    )
    ratio = costs[largest] / costs[smallest]
    name = f"time of each of {largest:,} as so many of one of {smallest:,}"
    yield lab.Figure(name, title, f"{ratio:.2f}", f"≤ {GROWTH}", ratio <= GROWTH)


def run(count: int) -> tuple[Any, float, float]:
    """Apply a set and wait for it: its result; seconds from the call to the last result, and from
    there to the start of its callback."""
    from django.db.models import Max

    from django_tasksets import TaskSet
    from django_tasksets.models import SubtaskRecord
    from tests.benchmarks.tasks import add, finished

    began = time.time()
    calls = (add.subtask((i, i)) for i in range(count))
    result = TaskSet(calls, on_finish=finished.subtask()).apply_async()
    lab.wait_until(result.callbacks["on_finish"].ready, pause=0.1, timeout=1200)
    members = SubtaskRecord.objects.filter(taskset=uuid.UUID(result.taskset_id), position__gte=0)
    last = members.aggregate(last=Max("finished_at"))["last"].timestamp()
    record = result.callbacks["on_finish"].record
    assert record is not None
    assert record.started_at is not None
    return result, last - began, record.started_at.timestamp() - last


@contextmanager
def highest_of(pid: int) -> Iterator[list[float]]:
    """The highest memory of each of a worker's processes meanwhile, in MB."""
    pids = lab.descendants(pid)
    peaks = [0.0] * len(pids)
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            for index, each in enumerate(pids):
                peaks[index] = max(peaks[index], memory("VmRSS", each))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    lab.main(measure, rounds=1)
