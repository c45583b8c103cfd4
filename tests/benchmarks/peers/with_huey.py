"""Huey's chord on Redis, with one worker process for each core, which poll without a pause."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from huey import RedisHuey, chord

from tests.benchmarks.peers.contender import CORES, REDIS, checked, emptied, serve, worker

huey = RedisHuey("peers", url=f"{REDIS}/13")


@huey.task()
def add(x: int, y: int) -> int:
    """Next to nothing."""
    return x + y


@huey.task()
def total(numbers: list[int]) -> tuple[float, int]:
    """The callback: when it began, and the sum."""
    return time.time(), sum(numbers)


def run(count: int) -> tuple[float, float]:
    """One chord."""
    result = huey.enqueue(chord([add.s(i, i) for i in range(count)], total.s()))
    submitted = time.time()
    began, found = result.callback.get(blocking=True, timeout=900)
    checked(found, count)
    return submitted, began


def main() -> None:
    """Take runs from stdin."""
    emptied(13)
    consumer = Path(sys.executable).with_name("huey_consumer")
    queue = "tests.benchmarks.peers.with_huey.huey"
    command = [str(consumer), queue, "-w", str(CORES), "-k", "process", "-d", "0.01", "-q"]
    with worker(command, PYTHONPATH=str(Path.cwd())):
        serve(run)


if __name__ == "__main__":
    # Not this module's: tasks are named after their module, which is another one here.
    from tests.benchmarks.peers.with_huey import main as main_of_module

    main_of_module()
