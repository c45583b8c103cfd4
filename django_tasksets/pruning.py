"""Deletes what is finished and past its retention, in chunks that hold no lock for long."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from django.db.models import Exists, F, OuterRef, Q

from .control import delete_set
from .exceptions import StillUnfinished
from .models import SubtaskRecord, TaskSetRecord, WorkerRecord
from .statuses import SubtaskStatus, TaskSetStatus
from .store import get_store

CHUNK = 1000
# A set that was saved and never applied, and a lost worker, are of no use after this.
LEFTOVERS = datetime.timedelta(days=7)


@dataclass(slots=True)
class Pruned:
    """How much was deleted, or would be."""

    sets: int = 0
    subtasks: int = 0
    """Those of no set."""
    workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long to keep what is finished; None keeps it for ever."""

    successful: datetime.timedelta | None
    others: datetime.timedelta | None
    """For what failed or was revoked."""


def prune(retention: Retention, *, dry_run: bool = False) -> Pruned:
    """Delete finished sets and single subtasks that are past their retention.

    A set goes with everything in it, and stays while a callback of it is unfinished. Each chunk is
    a transaction of its own: it may be stopped and started again at any time.
    """
    pruned = Pruned()
    store = get_store()
    old = _old_sets(retention, store.now())
    sets = TaskSetRecord.objects.using(store.alias).filter(old)
    # What somebody began to delete, and did not end, goes first.
    order = (F("discarded_at").asc(nulls_last=True), "finished_at")
    for key in list(sets.order_by(*order).values_list("id", flat=True)):
        try:
            pruned.sets += dry_run or delete_set(key, provided=old)
        except StillUnfinished:
            continue
    pruned.subtasks = _prune_alone(retention, dry_run=dry_run)
    pruned.workers = _prune_workers(dry_run=dry_run)
    return pruned


def _old_sets(retention: Retention, now: datetime.datetime) -> Q:
    """Which sets are to go."""
    old = Q(discarded_at__isnull=False)
    old |= Q(status=TaskSetStatus.SAVED, enqueued_at__lt=now - LEFTOVERS)
    if retention.successful is not None:
        old |= Q(status=TaskSetStatus.SUCCESSFUL, finished_at__lt=now - retention.successful)
    if retention.others is not None:
        badly = (TaskSetStatus.FAILED, TaskSetStatus.REVOKED)
        old |= Q(status__in=badly, finished_at__lt=now - retention.others)
    return old


def _prune_alone(retention: Retention, *, dry_run: bool) -> int:
    store = get_store()
    now = store.now()
    old = Q(pk__in=())
    if retention.successful is not None:
        old |= Q(status=SubtaskStatus.SUCCESSFUL, finished_at__lt=now - retention.successful)
    if retention.others is not None:
        badly = (SubtaskStatus.FAILED, SubtaskStatus.REVOKED)
        old |= Q(status__in=badly, finished_at__lt=now - retention.others)
    alone = SubtaskRecord.objects.using(store.alias).filter(old, taskset=None)
    if dry_run:
        return alone.count()
    deleted = 0
    while keys := list(alone.order_by("finished_at").values_list("id", flat=True)[:CHUNK]):
        # Those that are still as they were found: it may be retried at any time.
        deleted += alone.filter(id__in=keys).delete()[0]
    return deleted


def _prune_workers(*, dry_run: bool) -> int:
    """Rows of lost workers that no RUNNING subtask names any more."""
    store = get_store()
    held = SubtaskRecord.objects.using(store.alias).filter(
        worker_id=OuterRef("id"), status=SubtaskStatus.RUNNING
    )
    lost = WorkerRecord.objects.using(store.alias).filter(lost_at__lt=store.now() - LEFTOVERS)
    gone = lost.filter(~Exists(held))
    return gone.count() if dry_run else gone.delete()[0]
