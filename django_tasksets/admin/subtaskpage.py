"""What the page of one subtask shows: what it was called with, what came of it, who has it."""

from __future__ import annotations

import datetime
import json
import uuid
from dataclasses import dataclass
from typing import Any, Final

from django.utils.dateparse import parse_datetime
from django.utils.functional import cached_property
from django.utils.timezone import is_aware

from ..conf import current
from ..exceptions import UnreadableValue
from ..models import SubtaskRecord, TaskSetRecord, WorkerRecord
from ..options import stored_options
from ..statuses import Role
from . import words
from .links import Link, Links
from .values import READABLE, arguments_as_text, as_text, links_as_text, shortened

ERRORS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Failed:
    """One execution that did not succeed."""

    attempt: object
    exception_class: str
    message: str
    traceback: str
    at: str
    worker: Link


class SubtaskPage:
    """The panels of one subtask's page, for one user. Values only for those who may see them."""

    def __init__(self, record: SubtaskRecord, links: Links, *, shows_values: bool) -> None:
        self.record = record
        self.shows_values = shows_values
        self._links = links

    @property
    def status(self) -> words.Shown:
        """As it is shown."""
        return words.subtask_status(self.record.status)

    @property
    def role(self) -> str:
        """What it is to its set."""
        return words.role(self.record.role)

    @property
    def position(self) -> str:
        """A member's position in its set."""
        position = self.record.position
        return "" if position is None or position < 0 else f"#{position}"

    @cached_property
    def taskset(self) -> Link | None:
        """Its set."""
        taskset = self.record.taskset
        if taskset is None:
            return None
        return Link(str(taskset), self._links.page_of(TaskSetRecord, taskset.pk))

    @cached_property
    def worker(self) -> Link | None:
        """Who holds it, or held it last."""
        return None if self.record.worker_id is None else self._worker(self.record.worker_id)

    @property
    def duration(self) -> str:
        """Of the last execution, or of this one so far."""
        record = self.record
        return words.took(record.started_at or record.claimed_at, record.finished_at)

    @property
    def arguments(self) -> str:
        """The positional ones."""
        record = self.record
        given = 0 if record.role == Role.MEMBER or _is_immutable(record.options) else 1
        return arguments_as_text(record.args, record.task_name, given=given)

    @property
    def keyword_arguments(self) -> str:
        """By name."""
        return as_text(self.record.kwargs)

    @property
    def options(self) -> str:
        """Of the call, that have no column of their own."""
        return as_text(self.record.options) if self.record.options else ""

    @property
    def calls_after(self) -> str:
        """The links: what is enqueued when it ends."""
        return links_as_text(self.record.links) if self.record.links else ""

    @property
    def result(self) -> str | None:
        """What the task returned; None while there is no result."""
        stored = self.record.return_value
        return None if stored is None else as_text(stored)

    @cached_property
    def errors(self) -> list[Failed]:
        """The executions that did not succeed, the latest first."""
        return [self._failed(error) for error in reversed(self._latest_errors)]

    @property
    def errors_left_out(self) -> int:
        """How many older ones are not shown."""
        return max(0, len(self._lines) - ERRORS_SHOWN)

    @cached_property
    def _lines(self) -> list[str]:
        return self.record.errors.splitlines()

    @cached_property
    def _latest_errors(self) -> list[dict[str, Any]]:
        return [_parsed(line) for line in self._lines[-ERRORS_SHOWN:]]

    def _failed(self, error: dict[str, Any]) -> Failed:
        return Failed(
            attempt=error.get("attempt", ""),
            exception_class=shortened(str(error.get("exception_class") or "")),
            message=shortened(str(error.get("message") or "")),
            # As long as workers are told to keep them.
            traceback=str(error.get("traceback") or "")[:READABLE] if self.shows_values else "",
            at=words.moment(_moment(error.get("at"))),
            worker=self._worker(error.get("worker_id")),
        )

    def _worker(self, key: object) -> Link:
        worker = self._workers.get(str(key))
        if worker is None:
            return Link(str(key or words.NONE))
        return Link(str(worker), self._links.page_of(WorkerRecord, worker.pk))

    @cached_property
    def _workers(self) -> dict[str, WorkerRecord]:
        """Those of its workers that are still known, by one query."""
        keys = [error.get("worker_id") for error in self._latest_errors]
        wanted = {key for key in map(_key, [*keys, self.record.worker_id]) if key is not None}
        if not wanted:
            return {}
        workers = WorkerRecord.objects.using(current().DATABASE).filter(pk__in=wanted)
        return {str(worker.pk): worker for worker in workers}


def _parsed(line: str) -> dict[str, Any]:
    """A line of `errors`; one that cannot be read is its own message."""
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return {"message": line}


def _is_immutable(options: str) -> bool:
    try:
        return bool(stored_options(options).get("immutable"))
    except UnreadableValue:
        return False


def _moment(text: object) -> datetime.datetime | None:
    try:
        moment = parse_datetime(str(text))
    except ValueError:
        return None
    return moment if moment is not None and is_aware(moment) else None


def _key(value: object) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(value))
    except ValueError:
        return None
