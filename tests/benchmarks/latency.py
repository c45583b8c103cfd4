"""An idle worker: how soon it starts, how soon ten calls come together, and what it costs."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests import services
from tests.benchmarks import counting, floor_latency, lab

SINGLES = 200
FANS = 50
IDLE = 10
TARGETS = {"postgresql": (1.5, 5.0, 6.0), "sqlite": (4.0, None, 4.0)}
WITH_REDIS = (1.5, 5.0, None)
"""In milliseconds, where the database itself wakes the worker: the median start, the one that 99 of
100 do not exceed, and the median of ten calls that come together."""


def measure(title: str, rounds: int) -> Iterator[lab.Figure]:
    from django.conf import settings
    from django.test import override_settings

    kind = os.environ[services.DATABASE]
    if kind == "postgresql":
        bare = floor_latency.starts(SINGLES * rounds)
        shown = f"{statistics.median(bare):.2f} ms, {lab.percentile(bare, 99):.2f} ms"
        yield lab.Figure("bare psycopg: insert, NOTIFY, claim; median, 99 of 100", title, shown)
    yield from measured(title, rounds, TARGETS.get(kind, (None, None, None)))
    # On MySQL and MariaDB it has been Redis already.
    if kind != "mysql" and not services.redis_absent():
        os.environ[lab.WAKEUPS] = "redis"
        with override_settings(TASKSETS=settings.TASKSETS | {"WAKEUPS": "redis"}):
            yield from measured(f"{title}, woken by Redis", rounds, WITH_REDIS)


def measured(
    title: str, rounds: int, targets: tuple[float | None, float | None, float | None]
) -> Iterator[lab.Figure]:
    with tempfile.NamedTemporaryFile() as tally:
        os.environ[counting.TALLY] = tally.name
        with lab.worker() as pid:
            starts = [start() for _ in range(SINGLES * rounds)]
            fans = [fan_in(is_rested=True) for _ in range(FANS * rounds)]
            close = [fan_in(is_rested=False) for _ in range(FANS * rounds)]
            time.sleep(2)
            queries, share = idle(pid, Path(tally.name))
    found = {
        "a call: until it starts, median": statistics.median(starts),
        "a call: until it starts, 99 of 100": lab.percentile(starts, 99),
        "a set of 10: until its callback starts, median": statistics.median(fans),
    }
    what = "a set of 10, right after another: the same, median"
    yield lab.Figure(what, title, f"{statistics.median(close):.2f} ms")
    for (what, milliseconds), target in zip(found.items(), targets, strict=True):
        wanted = "" if target is None else f"≤ {target:g} ms"
        met = None if target is None else milliseconds <= target
        yield lab.Figure(what, title, f"{milliseconds:.2f} ms", wanted, met)
    yield lab.Figure("idle: queries a second", title, f"{queries:.1f}", "≤ 2", queries <= 2)
    yield lab.Figure("idle: share of a core", title, f"{share:.2%}", "≤ 1 %", share <= 0.01)


def start() -> float:
    """Milliseconds from the call of delay() to the start of the call that it makes."""
    from tests.benchmarks.tasks import stamp

    lab.rest()
    began = time.time()
    result = stamp.delay()
    return (result.get(timeout=30, interval=0.05) - began) * 1000


def fan_in(*, is_rested: bool) -> float:
    """Milliseconds from apply_async() of a set of ten to the start of its callback: after a rest,
    or right after another set."""
    from django_tasksets import TaskSet
    from tests.benchmarks.tasks import add, gathered

    if is_rested:
        lab.rest()
    began = time.time()
    calls = [add.subtask((n, n)) for n in range(10)]
    result = TaskSet(calls, on_success=gathered.subtask()).apply_async()
    # Without a rest the next one begins when this one's callback has been recorded.
    interval = 0.05 if is_rested else 0.001
    started: float = result.callbacks["on_success"].get(timeout=30, interval=interval)
    return (started - began) * 1000


def idle(pid: int, tally: Path) -> tuple[float, float]:
    """The queries a second and the share of a core of all processes of a worker that rests."""
    pids = lab.descendants(pid)
    before = tally.stat().st_size, lab.cpu_seconds(pids), time.monotonic()
    time.sleep(IDLE)
    after = tally.stat().st_size, lab.cpu_seconds(pids), time.monotonic()
    queries, seconds, passed = (b - a for a, b in zip(before, after, strict=True))
    return queries / passed, seconds / passed


if __name__ == "__main__":
    lab.main(measure, rounds=1)
