"""`manage.py taskworkerhealth`."""

from __future__ import annotations

import datetime
import sys
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import Q

from ...conf import current
from ...models import SubtaskRecord, WorkerRecord
from ...statuses import Role
from ...store import get_store
from ..arguments import seconds
from ..base import DatabaseCommand


class Command(DatabaseCommand):
    """Exits with 0 if a worker is alive and the queues move, else with 1: for health probes."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """What counts as healthy."""
        parser.add_argument("--host", help="ask for a worker on this host only")
        parser.add_argument("--queue", help="look at the waiting time in this queue only")
        parser.add_argument(
            "--max-waiting",
            type=seconds,
            metavar="SECONDS",
            help="unhealthy if a subtask has waited longer since it could have begun",
        )

    def handle(self, **options: Any) -> None:
        """Look, say it in one line, exit."""
        store = get_store()
        now = store.now()
        alive = WorkerRecord.objects.using(store.alias).alive(
            since=now - datetime.timedelta(seconds=current().LEASE)
        )
        if options["host"]:
            alive = alive.filter(host=options["host"])
        if not alive.exists():
            self._unhealthy("no worker is alive")
        if options["max_waiting"] is not None:
            ready = SubtaskRecord.objects.using(store.alias).ready()
            if options["queue"]:
                ready = ready.filter(queue_name=options["queue"])
            limit = now - datetime.timedelta(seconds=options["max_waiting"])
            late = ready.filter(
                Q(run_after=None) | Q(run_after__lt=limit),
                Q(role=Role.MEMBER) | Q(taskset__finished_at__lt=limit),
                enqueued_at__lt=limit,
            )
            if late.exists():
                self._unhealthy(f"a subtask has waited for more than {options['max_waiting']} s")
        self.stdout.write("healthy")

    def _unhealthy(self, why: str) -> None:
        self.stderr.write(f"unhealthy: {why}")
        sys.exit(1)
