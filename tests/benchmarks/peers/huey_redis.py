"""huey's chord on Redis: as many worker processes as cores, blocking reads, no health checks.

Members' own results are kept too, as is its default. It has no way to enqueue many at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from huey import RedisHuey
from huey.api import chord

from tests import services
from tests.benchmarks.floor import Timing
from tests.benchmarks.peers.contest import TIMEOUT, Run, check, started

queue = RedisHuey("peers", url=services.REDIS_URL)


@queue.task()
def add(x: int, y: int) -> int:
    return x + y


@queue.task()
def total(numbers: list[int]) -> tuple[float, int]:
    return time.time(), sum(numbers)


@contextmanager
def contender() -> Iterator[Run]:
    options = [f"--workers={os.cpu_count()}", "--worker-type=process", "--quiet"]
    options += ["--no-periodic", "--disable-health-check"]
    with started("-m", "huey.bin.huey_consumer", f"{__name__}.queue", *options):
        yield run


def run(count: int) -> Timing:
    began = time.time()
    result = queue.enqueue(chord([add.s(i, i) for i in range(count)], total.s()))
    enqueued = time.time()
    callback_began, found = result.get(blocking=True, timeout=TIMEOUT, max_delay=0.1)
    check(found, count)
    return Timing(enqueued - began, callback_began - began)
