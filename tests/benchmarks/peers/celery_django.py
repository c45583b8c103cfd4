"""Celery's chord, with results in PostgreSQL by django-celery-results: see celery_chord.py.

Redis is the broker. Processes keep their connections (CELERY_DB_REUSE_MAX; without it there is a
new one for each task). Each call reads the whole list of calls of its chord under a lock, so that
the rate falls as sets grow: at 10,000 it would be far lower than at the 1,000 that are run here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks.peers.celery_chord import new_app, racing
from tests.benchmarks.peers.contest import Run

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.benchmarks.peers.django_settings"
app = new_app("django-db", CELERY_DB_REUSE_MAX=1_000_000)


@contextmanager
def contender() -> Iterator[Run]:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    with racing(app, __name__) as run:
        yield run
