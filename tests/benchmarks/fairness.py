"""Sets of ten that are applied while a set of 100,000 is under way: how soon they finish."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import lab

COUNT = 100_000
SETS = 5
TARGET = 2.0


def measure(title: str, rounds: int) -> Iterator[lab.Figure]:
    from tests.benchmarks.tasks import add, nap

    with lab.worker():
        for what, call in {
            "that do next to nothing": add.subtask((1, 1)),
            "of 10 ms each": nap.subtask((0.01,)),
        }.items():
            seconds = [number for _ in range(rounds) for number in overtake(call)]
            yield lab.Figure(
                f"a set of 10 behind {COUNT:,} calls {what}",
                title,
                f"{lab.spread(seconds)} s",
                f"≤ {TARGET:.0f} s",
                max(seconds) <= TARGET,
            )


def overtake(call: Any) -> Iterator[float]:
    """Apply a long set, and then short ones, one after the other: from the call of apply_async()
    to the end, in seconds."""
    from django_tasksets import TaskSet

    lab.empty_sets()
    long = TaskSet(call for _ in range(COUNT)).apply_async()
    for _ in range(SETS):
        # What a worker is behind with shows only after a while.
        time.sleep(0.5)
        began = time.monotonic()
        short = TaskSet([call] * 10).apply_async()
        lab.wait_until(short.ready, pause=0.005)
        if long.ready():
            break
        yield time.monotonic() - began
    long.revoke()
    lab.wait_until(long.ready)


if __name__ == "__main__":
    lab.main(measure, rounds=2)
