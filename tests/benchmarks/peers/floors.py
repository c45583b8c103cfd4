"""The hand-written loop over this package's tables, which no general task queue can beat by much.

Run in each batch size, and the best of them is what counts: see floor.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests import services
from tests.benchmarks import lab, throughput
from tests.benchmarks.floor import Timing
from tests.benchmarks.peers.contest import Run


@contextmanager
def contender() -> Iterator[Run]:
    kind = os.environ[services.DATABASE]
    with lab.scratch_database(kind):
        name = os.environ[services.DATABASE_NAME]

        def run(count: int) -> Timing:
            batches = throughput.BATCHES
            timings = [throughput.run_floor(kind, name, batch, count) for batch in batches]
            return min(timings, key=lambda timing: timing.whole)

        yield run
