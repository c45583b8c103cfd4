"""Ten thousand sets of ten, beside one set of a hundred thousand: subtasks a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import lab

SETS = 10_000
SIZE = 10
TARGET = 0.5


def measure(title: str, rounds: int) -> Iterator[lab.Figure]:
    many: list[float] = []
    one: list[float] = []
    with lab.worker():
        for _ in range(rounds):
            one.append(rate(1, SETS * SIZE))
            many.append(rate(SETS, SIZE))
    yield lab.Figure(f"1 set of {SETS * SIZE:,}", title, f"{lab.spread(one, 0)} a second")
    yield lab.Figure(f"{SETS:,} sets of {SIZE}", title, f"{lab.spread(many, 0)} a second")
    shares = [few / whole for few, whole in zip(many, one, strict=True)]
    met = min(shares) >= TARGET
    yield lab.Figure("the share of the latter", title, lab.spread(shares), f"≥ {TARGET}", met)


def rate(sets: int, size: int) -> float:
    """Subtasks a second, from the first call to the last set's end. Each set has a callback."""
    from django_tasksets import TaskSet
    from django_tasksets.models import TaskSetRecord
    from tests.benchmarks.tasks import add, finished

    lab.empty_sets()
    running = TaskSetRecord.objects.running()
    began = time.monotonic()
    for _ in range(sets):
        calls = (add.subtask((i, i)) for i in range(size))
        TaskSet(calls, on_finish=finished.subtask()).apply_async()
    lab.wait_until(lambda: not running.exists(), pause=0.05)
    return sets * size / (time.monotonic() - began)


if __name__ == "__main__":
    lab.main(measure, rounds=1)
