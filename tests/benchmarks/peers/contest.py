"""One run of one contender, in a process of its own, which prints how long it took.

A contender is a module with a context manager `contender()`: all that it needs is up within it, and
what it yields submits a set of so many calls and waits until its callback has begun. Which servers
it may use is in the environment: see places.py.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib import import_module

from tests.benchmarks.floor import Timing
from tests.benchmarks.lab import ROOT

Run = Callable[[int], Timing]
WARM_UP = 200
TIMEOUT = 600
"""Seconds for one set, at most."""


def main() -> None:
    """Warm up, rest, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", help="the name of its module")
    parser.add_argument("count", type=int, help="how many calls")
    options = parser.parse_args()
    # Told to end, it still ends its workers, and drops the database that it made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    module = import_module(f"{__package__}.{options.contender}")
    with module.contender() as run:
        run(WARM_UP)
        time.sleep(1)
        timing = run(options.count)
    print(json.dumps(asdict(timing)), flush=True)


def check(total: int, count: int) -> None:
    """Whether that is the sum of what all calls return."""
    assert total == count * (count - 1), f"{total} is not the sum of {count} results"


@contextmanager
def started(*arguments: str, copies: int = 1) -> Iterator[None]:
    """So many processes of this Python with these arguments, until the end of the block."""
    with ExitStack() as stack:
        for _ in range(copies):
            stack.enter_context(_process(arguments))
        yield


@contextmanager
def _process(arguments: tuple[str, ...]) -> Iterator[None]:
    # What they print must not come between the parent and the figures.
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=sys.stderr)
    wanted = threading.Event()
    threading.Thread(target=_watch, args=(process, wanted), daemon=True).start()
    try:
        yield
    finally:
        wanted.set()
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _watch(process: subprocess.Popen[bytes], wanted: threading.Event) -> None:
    """End this process when that one ends unasked: what waits for it would wait for ever."""
    code = process.wait()
    if not wanted.is_set():
        print(f"a worker ended with exit code {code}", file=sys.stderr, flush=True)
        os._exit(1)


if __name__ == "__main__":
    main()
