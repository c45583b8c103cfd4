"""Celery's chord, with Redis as broker and for results: see celery_chord.py.

Results in the order of the calls, as is its default.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from tests import services
from tests.benchmarks.peers.celery_chord import new_app, racing
from tests.benchmarks.peers.contest import Run

app = new_app(services.REDIS_URL)


def contender() -> AbstractContextManager[Run]:
    return racing(app, __name__)
