"""Celery's chord: prefork, one process for each core, with results in Redis or in Django's ORM.

As fast as it goes: messages are acknowledged before the task, prefetched by the hundred, sent and
stored as JSON, without events, gossip, heartbeats or rate limits. With results in the ORM,
connections are kept (`CELERY_DB_REUSE_MAX`); there the broker is Redis as well.

Run by the comparison with "redis" or "orm"; Celery imports it as a module, for its worker.
"""

from __future__ import annotations

import os
import sys
import time

import django
from celery import Celery, chord
from django.conf import settings
from django.core.management import call_command

from tests.benchmarks.peers.contender import CORES, REDIS, checked, emptied, serve, worker

VARIANT = os.environ.setdefault("PEERS_CELERY", sys.argv[-1])
FOR_EVER = 10**9

# Each variant has a broker to itself: workers of the other would take its tasks.
BROKER = 11 if VARIANT == "redis" else 10
app = Celery("peers", broker=f"{REDIS}/{BROKER}", set_as_current=True)
app.conf.update(
    result_backend=f"{REDIS}/12" if VARIANT == "redis" else "django-db",
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_acks_late=False,
    worker_prefetch_multiplier=128,
    worker_send_task_events=False,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
)
if VARIANT == "orm":
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": os.environ["PEERS_DATABASE"],
                "CONN_MAX_AGE": None,
            }
        },
        INSTALLED_APPS=["django.contrib.contenttypes", "django_celery_results"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        CELERY_DB_REUSE_MAX=FOR_EVER,
    )
    app.conf.db_reuse_max = FOR_EVER
    django.setup()


@app.task(name="add")
def add(x: int, y: int) -> int:
    """Next to nothing."""
    return x + y


@app.task(name="total")
def total(numbers: list[int]) -> tuple[float, int]:
    """The callback: when it began, and the sum."""
    return time.time(), sum(numbers)


def run(count: int) -> tuple[float, float]:
    """One chord."""
    result = chord(add.s(i, i) for i in range(count))(total.s())
    submitted = time.time()
    began, found = result.get(timeout=900, interval=0.05)
    checked(found, count)
    return submitted, began


def main() -> None:
    """Take runs from stdin."""
    emptied(BROKER, *([12] if VARIANT == "redis" else []))
    if VARIANT == "orm":
        call_command("migrate", verbosity=0)
    options = ["--concurrency", str(CORES), "--loglevel", "ERROR", "--pool", "prefork"]
    options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    module = "tests.benchmarks.peers.with_celery"
    command = [sys.executable, "-m", "celery", "-A", module, "worker", *options]
    with worker(command):
        serve(run)


if __name__ == "__main__":
    main()
