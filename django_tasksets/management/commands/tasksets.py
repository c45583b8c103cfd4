"""`manage.py tasksets`."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...control import delete_set, revoke_set
from ...exceptions import TaskSetsError
from ...ids import parse_id
from ...models import TaskSetRecord
from ...setresults import TaskSetResult
from ...steering import pause_set, rerun_set, resume_set, retry_failed_set
from ...store import get_store

BAR_WIDTH = 30
ACTIONS: dict[str, Callable[[uuid.UUID], object]] = {
    "revoke": revoke_set,
    "pause": pause_set,
    "resume": resume_set,
    "retry": retry_failed_set,
    "rerun": rerun_set,
    "delete": delete_set,
}
SAID = {
    "revoke": "revoked {0} subtasks that had not begun; those that execute were asked to stop",
    "pause": "paused: {0}",
    "resume": "resumed: {0}",
    "retry": "took {0} subtasks back",
    "rerun": "applied again as {0}",
    "delete": "deleted",
}


class Command(BaseCommand):
    """Shows task sets, watches one, and steers it: what the admin does, in a shell."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """What to do, to which set."""
        parser.add_argument("action", nargs="?", default="status", choices=["status", *ACTIONS])
        parser.add_argument("id", nargs="?", help="the set; without it, status lists the latest")
        parser.add_argument("--watch", action="store_true", help="show status until it is finished")
        parser.add_argument("--json", action="store_true", help="one JSON object a line")
        parser.add_argument("--limit", type=int, default=20, help="how many to list")

    def handle(self, **options: Any) -> None:
        """Do it; errors of the package are the command's."""
        try:
            if options["action"] == "status":
                self._status(options)
            else:
                self._steer(options["action"], options["id"])
        except TaskSetsError as error:
            raise CommandError(str(error)) from error

    def _steer(self, action: str, given: str | None) -> None:
        if given is None:
            raise CommandError(f"{action} needs the id of a task set")
        key = parse_id(given)
        if not TaskSetRecord.objects.using(get_store().alias).filter(id=key).exists():
            raise CommandError(f"there is no task set {key}")
        self.stdout.write(SAID[action].format(ACTIONS[action](key)))

    def _status(self, options: dict[str, Any]) -> None:
        if options["id"] is None:
            latest = TaskSetRecord.objects.using(get_store().alias).order_by("-enqueued_at")
            for key in latest.values_list("id", flat=True)[: options["limit"]]:
                self._show(TaskSetResult(key), as_json=options["json"])
            return
        result = TaskSetResult(parse_id(options["id"]))
        self._show(result, as_json=options["json"])
        while options["watch"] and not result.ready():
            time.sleep(1)
            self._show(result, as_json=options["json"])

    def _show(self, result: TaskSetResult, *, as_json: bool) -> None:
        progress, status = result.progress(), result.status
        if as_json:
            facts = {"id": result.id, "status": status, "name": result.name}
            counts = ("total", "remaining", "successful", "failed", "revoked", "percent")
            facts |= {name: getattr(progress, name) for name in counts}
            self.stdout.write(json.dumps(facts))
            return
        filled = BAR_WIDTH * progress.percent // 100
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        self.stdout.write(
            f"{result.id} [{bar}] {progress.percent:3} % of {progress.total}, "
            f"{progress.failed} failed, {progress.revoked} revoked, {status} {result.name}"
        )
