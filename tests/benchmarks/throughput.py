"""A set of 10,000 calls that do next to nothing: a real worker against the hand-written floor.

Both by turns in one run, on databases alike: from the call of apply_async() to the start of the
callback, whose list of results has been read by then.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests import services
from tests.benchmarks import lab
from tests.benchmarks.floor import Timing, floor

COUNT = 10_000
BATCHES = (200, 500, 1000)
TARGETS = {"postgresql": 0.9, "sqlite": 0.6, "mysql": 0.6}


def measure(title: str, rounds: int) -> Iterator[lab.Figure]:
    kind = os.environ[services.DATABASE]
    ours: list[Timing] = []
    floors: dict[int, list[Timing]] = {batch: [] for batch in BATCHES}
    with lab.copied_database() as copy, lab.worker():
        for number in range(rounds):
            for batch in BATCHES:
                floors[batch].append(run_floor(kind, copy, batch))
            ours.append(run_ours())
            best = min(timings[-1].whole for timings in floors.values())
            lab.say(f"round {number + 1}: ours {ours[-1].whole:.2f} s, floor {best:.2f} s")
    batch = min(BATCHES, key=lambda batch: statistics.median(t.whole for t in floors[batch]))
    best_floor = floors[batch]
    name = f"{COUNT:,} calls: the floor, in batches of {batch}"
    yield lab.Figure(name, title, shown(best_floor))
    yield lab.Figure(f"{COUNT:,} calls: one worker", title, shown(ours))
    # Of what was measured side by side: the machine is not equally fast all the time.
    pairs = list(zip(best_floor, ours, strict=True))
    shares = [theirs.whole / our.whole for theirs, our in pairs]
    target = TARGETS[kind]
    met = statistics.median(shares) >= target
    name = f"{COUNT:,} calls: its speed as a share of the floor's"
    yield lab.Figure(name, title, lab.spread(shares), f"≥ {target}", met)
    shares = [theirs.enqueue / our.enqueue for theirs, our in pairs]
    yield lab.Figure(f"{COUNT:,} calls: the same of enqueueing", title, lab.spread(shares))


def run_floor(kind: str, database: str, batch: int, count: int = COUNT) -> Timing:
    loop = floor(kind, database, batch)
    try:
        loop.empty()
        return loop.run(count)
    finally:
        loop.close()


def run_ours(count: int = COUNT) -> Timing:
    from django_tasksets import TaskSet
    from tests.benchmarks.tasks import add, total

    lab.empty_sets()
    began = time.time()
    calls = (add.subtask((i, i)) for i in range(count))
    result = TaskSet(calls, on_success=total.subtask()).apply_async()
    enqueued = time.time()
    callback = result.callbacks["on_success"]
    lab.wait_until(callback.ready, pause=0.1)
    assert callback.get() == count * (count - 1)
    record = callback.record
    assert record is not None
    assert record.started_at is not None
    return Timing(enqueued - began, record.started_at.timestamp() - began)


def shown(timings: list[Timing]) -> str:
    whole = [timing.whole for timing in timings]
    enqueue = statistics.median(timing.enqueue for timing in timings)
    rate = COUNT / statistics.median(whole)
    return f"{lab.spread(whole)} s, of which enqueueing {enqueue:.2f} s; {rate:,.0f}/s"


if __name__ == "__main__":
    lab.main(measure, rounds=7)
