"""How a contender is asked to run: each line that it reads is one run, each that it prints a time.

A contender is a process of its own, with what it needs installed in an environment of its own. It
starts its worker, warms it up, and says "ready". Then it is told a number of subtasks in a line on
stdin, runs a set of so many and its callback, and prints, in seconds, how long that took to submit
and how long until the callback began with all results in its hands: `{"enqueue": .., "whole": ..}`.
At the end of stdin it stops its worker.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

# Databases of Redis that nothing else uses; they are flushed.
REDIS = os.environ.get("PEERS_REDIS", "redis://127.0.0.1:6379")
CORES = os.cpu_count() or 1
WARM_UP = 200


def serve(
    run: Callable[[int], tuple[float, float]], prepare: Callable[[], None] = lambda: None
) -> None:
    """Take runs from stdin until it ends. `run` takes a number of subtasks, and returns two moments
    of time.time(): when all was submitted, and when the callback began. What `prepare` does before
    is not measured."""
    run(WARM_UP)
    print("ready", flush=True)
    for line in sys.stdin:
        prepare()
        began = time.time()
        submitted, called = run(int(line))
        print(json.dumps({"enqueue": submitted - began, "whole": called - began}), flush=True)


@contextmanager
def worker(command: Sequence[str], **environment: str) -> Iterator[None]:
    """A worker in a process group of its own, which is ended with all that is in it."""
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=sys.stderr,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def emptied(*databases: int) -> None:
    """Empty these databases of Redis: what another run has left there would be taken for new."""
    from redis import Redis

    for number in databases:
        Redis.from_url(f"{REDIS}/{number}").flushdb()


def checked(total: int, count: int) -> None:
    """Raise unless that is the sum of all results."""
    if total != count * (count - 1):
        raise AssertionError(f"{total} is not the sum of {count} results")
