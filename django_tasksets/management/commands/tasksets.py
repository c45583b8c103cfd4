"""`manage.py tasksets`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from django.core.management.base import CommandError, CommandParser

from ...control import delete_set, forget, forget_set, revoke_set, revoke_subtasks
from ...exceptions import TaskSetsError
from ...ids import parse_id
from ...models import SubtaskRecord, TaskSetRecord
from ...progress import as_line
from ...setresults import TaskSetResult
from ...steering import pause_set, rerun_set, resume_set, retry_failed_set, retry_subtasks
from ...store import get_store
from ..arguments import positive
from ..base import DatabaseCommand


class Action(NamedTuple):
    """Something that can be done to a set, and perhaps to a single subtask."""

    to_set: Callable[..., object]
    said: str
    """What was done, with what it returned."""
    to_subtasks: Callable[..., object] | None = None
    said_of_subtasks: str = ""


ACTIONS = {
    "revoke": Action(
        revoke_set,
        "revoked {0} subtasks that had not begun; those that execute were asked to stop",
        revoke_subtasks,
        "revoked, or asked to stop: {0} subtasks",
    ),
    "pause": Action(pause_set, "paused: {0}"),
    "resume": Action(resume_set, "resumed: {0}"),
    "retry": Action(
        retry_failed_set, "took {0} subtasks back", retry_subtasks, "took {0} subtasks back"
    ),
    "rerun": Action(rerun_set, "applied again as {0}"),
    "forget": Action(forget_set, "dropped all results and errors", forget, "forgotten"),
    "delete": Action(delete_set, "deleted"),
}


class Command(DatabaseCommand):
    """Shows task sets, watches one, steers sets and subtasks: the admin's buttons in a shell."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """What to do, and to what."""
        parser.add_argument("action", nargs="?", default="status", choices=["status", *ACTIONS])
        parser.add_argument(
            "id",
            nargs="?",
            help="the set; revoke, retry and forget also take the id of a subtask; without one, "
            "status lists the latest sets",
        )
        parser.add_argument(
            "--terminate",
            action="store_true",
            help="with revoke: replace the processes that execute what is revoked",
        )
        parser.add_argument("--reason", help="with revoke: kept with what is revoked")
        parser.add_argument("--watch", action="store_true", help="show status until it is finished")
        parser.add_argument("--json", action="store_true", help="one JSON object a line")
        parser.add_argument("--limit", type=positive, default=20, help="how many to list")

    def handle(self, **options: Any) -> None:
        """Do it; errors of the package are the command's."""
        try:
            if options["action"] == "status":
                self._status(options)
            else:
                self._steer(options)
        except TaskSetsError as error:
            raise CommandError(str(error)) from error

    def _steer(self, options: dict[str, Any]) -> None:
        name = options["action"]
        action = ACTIONS[name]
        if options["id"] is None:
            raise CommandError(f"{name} needs the id of a task set")
        how: dict[str, Any] = {}
        if name == "revoke":
            how = {"terminate": options["terminate"], "reason": options["reason"] or "revoked"}
        elif options["terminate"] or options["reason"]:
            raise CommandError("--terminate and --reason go with revoke")
        key, alias = parse_id(options["id"]), get_store().alias
        if TaskSetRecord.objects.using(alias).filter(id=key).exists():
            self.stdout.write(action.said.format(action.to_set(key, **how)))
        elif not SubtaskRecord.objects.using(alias).filter(id=key).exists():
            raise CommandError(f"there is no task set and no subtask {key}")
        elif action.to_subtasks is None:
            raise CommandError(f"{key} is a subtask; {name} is for task sets")
        else:
            self.stdout.write(action.said_of_subtasks.format(action.to_subtasks([key], **how)))

    def _status(self, options: dict[str, Any]) -> None:
        if options["terminate"] or options["reason"]:
            raise CommandError("--terminate and --reason go with revoke")
        if options["id"] is None:
            if options["watch"]:
                raise CommandError("--watch needs the id of a task set")
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
        self.stdout.write(f"{result.id} {as_line(progress, result.name)}")
