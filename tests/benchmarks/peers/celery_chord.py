"""What both contenders of Celery share: the app, the chord, the worker.

Set up for speed: as many prefork processes as cores; messages prefetched, handed on early to the
processes (-O default), and acknowledged before they execute; no events, gossip, mingling,
heartbeats, remote control, rate limits. JSON, as is its default.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from celery import Celery, chord

from tests import services
from tests.benchmarks.floor import Timing
from tests.benchmarks.peers.contest import TIMEOUT, Run, check, started

OPTIONS = (
    "-Odefault",
    "--without-gossip",
    "--without-mingle",
    "--without-heartbeat",
    "--loglevel=ERROR",
)


def new_app(backend: str, **settings: Any) -> Celery:
    """An app with the two tasks, that keeps results there."""
    app = Celery("peers", broker=services.REDIS_URL, backend=backend, set_as_current=True)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        result_chord_join_timeout=TIMEOUT,
        worker_disable_rate_limits=True,
        worker_enable_remote_control=False,
        worker_prefetch_multiplier=64,
        **settings,
    )
    app.task(name="add")(add)
    app.task(name="total")(total)
    return app


def add(x: int, y: int) -> int:
    return x + y


def total(numbers: list[int]) -> tuple[float, int]:
    return time.time(), sum(numbers)


@contextmanager
def racing(app: Celery, module: str) -> Iterator[Run]:
    """A worker of the app in that module, and what runs a chord on it."""

    def run(count: int) -> Timing:
        add, total = app.tasks["add"], app.tasks["total"]
        began = time.time()
        result = chord(add.s(i, i) for i in range(count))(total.s())
        enqueued = time.time()
        callback_began, found = result.get(timeout=TIMEOUT)
        check(found, count)
        return Timing(enqueued - began, callback_began - began)

    with _worker(module):
        yield run


def _worker(module: str) -> AbstractContextManager[None]:
    concurrency = f"--concurrency={os.cpu_count()}"
    return started("-m", "celery", "-A", module, "--quiet", "worker", concurrency, *OPTIONS)
