"""django-tasks-db on PostgreSQL, which has no sets: counted by hand through the ORM.

All calls are enqueued in one transaction; it has no way to insert many at once. Workers keep their
connections. A call counts its set down in a receiver of `task_finished`, in autocommit: by then its
result has been stored, and no table of one's own is needed for results.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks import lab
from tests.benchmarks.floor import Timing
from tests.benchmarks.peers.contest import TIMEOUT, Run, check, started

WORKERS = 4
"""The fastest number on two cores: a worker waits for the database most of the time."""


@contextmanager
def contender() -> Iterator[Run]:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.benchmarks.peers.django_settings"

    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    worker = ("-m", "django", "db_worker", "--no-startup-delay", "--interval=0.1", "--verbosity=0")
    with started(*worker, copies=WORKERS):
        yield run


def run(count: int) -> Timing:
    from django.db import transaction

    from tests.benchmarks.peers.counted.models import CountedSet
    from tests.benchmarks.peers.counted.tasks import add

    began = time.time()
    with transaction.atomic():
        counted = CountedSet.objects.create(remaining=count)
        for i in range(count):
            add.enqueue(counted.pk, i, i)
    enqueued = time.time()
    done = CountedSet.objects.filter(pk=counted.pk, callback_began__gt=0)
    ended = lab.wait_until(done.first, timeout=TIMEOUT, pause=0.1)
    assert ended is not None
    check(ended.total, count)
    return Timing(enqueued - began, ended.callback_began - began)
