"""Ten thousand sets of ten, beside one set of a hundred thousand: subtasks a second.

Once applied all at once, by apply_all(), and once one after the other, each in a transaction of its
own, by one caller who waits for each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import lab

SETS = 10_000
SIZE = 10
TARGET = 0.5


def measure(title: str, rounds: int) -> Iterator[lab.Figure]:
    many: list[float] = []
    single: list[float] = []
    one: list[float] = []
    with lab.worker():
        for number in range(rounds):
            one.append(rate(1, SETS * SIZE, all_at_once))
            many.append(rate(SETS, SIZE, all_at_once))
            single.append(rate(SETS, SIZE, one_by_one))
            lab.say(f"round {number + 1}: {one[-1]:.0f}, {many[-1]:.0f}, {single[-1]:.0f} a second")
    yield lab.Figure(f"1 set of {SETS * SIZE:,}", title, f"{lab.spread(one, 0)} a second")
    name = f"{SETS:,} sets of {SIZE}"
    yield lab.Figure(f"{name}, all at once", title, f"{lab.spread(many, 0)} a second")
    shares = [few / whole for few, whole in zip(many, one, strict=True)]
    met = min(shares) >= TARGET
    yield lab.Figure("the share of the first", title, lab.spread(shares), f"≥ {TARGET}", met)
    yield lab.Figure(f"{name}, one by one", title, f"{lab.spread(single, 0)} a second")
    shares = [few / whole for few, whole in zip(single, one, strict=True)]
    yield lab.Figure("the share of the first", title, lab.spread(shares))


def rate(sets: int, size: int, apply: Callable[[Iterator[Any]], None]) -> float:
    """Subtasks a second, from the first call to the last set's end. Each set has a callback."""
    from django_tasksets import TaskSet
    from django_tasksets.models import TaskSetRecord
    from tests.benchmarks.tasks import add, finished

    def made() -> Iterator[TaskSet]:
        for _ in range(sets):
            calls = (add.subtask((i, i)) for i in range(size))
            yield TaskSet(calls, on_finish=finished.subtask())

    lab.empty_sets()
    running = TaskSetRecord.objects.running()
    began = time.monotonic()
    apply(made())
    lab.wait_until(lambda: not running.exists(), pause=0.05)
    return sets * size / (time.monotonic() - began)


def all_at_once(sets: Iterator[Any]) -> None:
    """Apply them in one transaction."""
    from django_tasksets import TaskSet

    TaskSet.apply_all(sets)


def one_by_one(sets: Iterator[Any]) -> None:
    """Apply each in a transaction of its own."""
    for each in sets:
        each.apply_async()


if __name__ == "__main__":
    lab.main(measure, rounds=1)
