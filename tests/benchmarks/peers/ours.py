"""This package: one worker with its defaults, on the kind of database in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests import services
from tests.benchmarks import lab, throughput
from tests.benchmarks.peers.contest import Run


@contextmanager
def contender() -> Iterator[Run]:
    with lab.scratch_database(os.environ[services.DATABASE]), lab.worker():
        yield throughput.run_ours
