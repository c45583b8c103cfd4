"""Why a set is not finished: what is outstanding of it, and what each waits for."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..conf import current
from ..models import SubtaskRecord, TaskSetRecord, WorkerRecord
from ..statuses import RevokeFlag, Role, SubtaskStatus
from . import words
from .links import Link, Links

SHOWN: Final = 10
WORKERS_ASKED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A member that is not finished, and why."""

    record: SubtaskRecord
    link: Link
    reason: SafeString

    @property
    def status(self) -> words.Shown:
        """As it is shown."""
        return words.subtask_status(self.record.status)


def waiting_for(
    taskset: TaskSetRecord, link: Callable[[SubtaskRecord], Link], links: Links
) -> list[Outstanding]:
    """Up to ten members that are outstanding: those that execute first, then those that wait."""
    rows = _outstanding(taskset)
    if not rows:
        return []
    workers = Workers(links)
    return [Outstanding(row, link(row), _reason(row, taskset, workers)) for row in rows]


def _outstanding(taskset: TaskSetRecord) -> list[SubtaskRecord]:
    """By status, so that each question has an index to go by, and stops at the tenth answer.

    Members are claimed in the order of their positions, so those that wait for a worker begin
    behind as many members as are finished; before that front there are stragglers only. Members
    are WAITING in a paused set only: to look for them elsewhere would be to read the set in vain.
    """
    members = SubtaskRecord.objects.using(current().DATABASE).filter(
        taskset_id=taskset.pk, role=Role.MEMBER
    )
    members = members.only(
        "id", "taskset_id", "role", "position", "task_name", "status", "queue_name", "run_after",
        "retries", "worker_id", "claimed_at", "started_at", "enqueued_at", "revoke_flag",
    )  # fmt: skip
    found: list[SubtaskRecord] = []
    front = taskset.total - taskset.remaining
    next_up = members.filter(position__gte=front).order_by("position")
    parts: list[QuerySet[SubtaskRecord]] = [
        members.filter(status=SubtaskStatus.RUNNING).order_by("claimed_at"),
        members.filter(status=SubtaskStatus.SCHEDULED).order_by("run_after"),
        next_up.filter(status=SubtaskStatus.READY),
        members.filter(status=SubtaskStatus.READY, position__lt=front).order_by("-position"),
    ]
    if taskset.paused_at is not None:
        parts.insert(2, next_up.filter(status=SubtaskStatus.WAITING))
    for rows in parts:
        if len(found) < min(SHOWN, taskset.remaining):
            found += rows[: SHOWN - len(found)]
    return found


class Workers:
    """All workers that are known, by one query."""

    def __init__(self, links: Links) -> None:
        workers = WorkerRecord.objects.using(current().DATABASE).annotate(read_at=Now())
        found = list(workers.order_by("-started_at")[:WORKERS_ASKED])
        self._links = links
        self._by_id = {worker.pk: worker for worker in found}
        self._alive = [worker for worker in found if self.status(worker).key in ("alive", "late")]

    def status(self, worker: WorkerRecord) -> words.Shown:
        """How it is doing, by the database's clock, in which heartbeats are."""
        now: datetime.datetime = getattr(worker, "read_at", None) or timezone.now()
        return words.worker_status(worker, now)

    def get(self, key: uuid.UUID | None) -> WorkerRecord | None:
        """The worker, if it is still known."""
        return None if key is None else self._by_id.get(key)

    def link(self, worker: WorkerRecord) -> Link:
        """Its name and its page."""
        return Link(str(worker), self._links.page_of(WorkerRecord, worker.pk))

    def take_from(self, queue: str) -> bool:
        """Whether a live worker does; one without a list of queues takes from all."""
        return any(not w.queues or queue in w.queues.split(",") for w in self._alive)


def _reason(row: SubtaskRecord, taskset: TaskSetRecord, workers: Workers) -> SafeString:
    if row.status == SubtaskStatus.RUNNING:
        return _running(row, workers)
    if row.status == SubtaskStatus.SCHEDULED:
        text = _("retry at {when}") if row.retries else _("starts at {when}")
        return format_html(text, when=words.moment(row.run_after))
    if row.status == SubtaskStatus.WAITING:
        paused = taskset.paused_at is not None
        return format_html("{}", _("held back: the set is paused") if paused else _("held back"))
    if workers.take_from(row.queue_name):
        text = _("queued in {queue} since {since}")
    else:
        text = _("queued in {queue} since {since}; no live worker takes from that queue")
    since = words.moment(row.run_after or row.enqueued_at)
    return format_html(text, queue=row.queue_name, since=since)


def _running(row: SubtaskRecord, workers: Workers) -> SafeString:
    worker = workers.get(row.worker_id)
    if worker is None:
        return format_html("{}", _("held by a worker that is gone; it will be given back"))
    status = workers.status(worker).key
    if status == "lost":
        text = _("held by {worker}, which is lost; it will be given back")
    elif status == "late":
        text = _("running on {worker} since {since}; that worker is late, its lease ends at {end}")
    elif row.revoke_flag != RevokeFlag.NONE:
        text = _("running on {worker} since {since}, asked to stop")
    else:
        text = _("running on {worker} since {since}")
    lease = datetime.timedelta(seconds=current().LEASE)
    return format_html(
        text,
        worker=workers.link(worker),
        since=words.moment(row.started_at or row.claimed_at),
        end=words.moment(worker.heartbeat_at + lease),
    )
