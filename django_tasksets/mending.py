"""Puts right what only a hand in the database leaves behind: words, numbers and holders that no
code of ours writes. Steps of the sweep, each about one set under its lock, or about what is loose.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any, Final

from django.db.models import Count, Exists, F, Max, OuterRef, Q, Value
from django.db.models.functions import Least

from .completion import locked_row
from .models import SubtaskRecord, TaskSetRecord
from .querysets import SubtaskQuerySet, TaskSetQuerySet
from .statuses import FINISHED, FINISHED_SETS, Role, SubtaskStatus, TaskSetStatus, set_outcome
from .store.contract import Store
from .store.moments import Now, from_now

logger = logging.getLogger("django_tasksets")

CHUNK: Final = 500
KNOWN: Final = tuple(SubtaskStatus)
KNOWN_SETS: Final = tuple(TaskSetStatus)
# Sets that finished longer ago than this, in seconds, are not looked at any more.
RECENT: Final = 3_600


def sets(store: Store) -> TaskSetQuerySet:
    """All sets, by id."""
    return TaskSetRecord.objects.using(store.alias).order_by("id")


def members(store: Store, taskset_id: uuid.UUID) -> SubtaskQuerySet:
    """The members of a set."""
    subtasks = SubtaskRecord.objects.using(store.alias).order_by()
    return subtasks.filter(taskset_id=taskset_id, position__gte=0)


# Counts


def counted_members(store: Store, taskset_id: uuid.UUID) -> dict[str, int]:
    """The counts of a set as its members have them at this moment."""
    counted: dict[str, int] = members(store, taskset_id).aggregate(
        total=Count("pk"),
        remaining=Count("pk", filter=~Q(status__in=FINISHED)),
        successful=Count("pk", filter=Q(status=SubtaskStatus.SUCCESSFUL)),
        failed=Count("pk", filter=Q(status=SubtaskStatus.FAILED)),
        revoked=Count("pk", filter=Q(status=SubtaskStatus.REVOKED)),
    )
    return counted


def write_counts(taskset: TaskSetQuerySet, counted: Mapping[str, int], **columns: Any) -> None:
    """Write counted numbers down, and forgive no more failures than there are."""
    taskset.update(**counted, forgiven=Least("forgiven", Value(counted["failed"])), **columns)


def miscounted(running: TaskSetQuerySet) -> TaskSetQuerySet:
    """Those whose counts are not those of their members: by one statement, which sees one moment,
    so that what is being recorded meanwhile does not matter."""
    is_member = Q(subtasks__position__gte=0)
    counted = running.values("id").annotate(
        members=Count("subtasks", filter=is_member),
        unfinished=Count("subtasks", filter=is_member & ~Q(subtasks__status__in=FINISHED)),
        successes=Count(
            "subtasks", filter=is_member & Q(subtasks__status=SubtaskStatus.SUCCESSFUL)
        ),
        failures=Count("subtasks", filter=is_member & Q(subtasks__status=SubtaskStatus.FAILED)),
        revocations=Count("subtasks", filter=is_member & Q(subtasks__status=SubtaskStatus.REVOKED)),
    )
    wrong = counted.exclude(
        total=F("members"),
        remaining=F("unfinished"),
        successful=F("successes"),
        failed=F("failures"),
        revoked=F("revocations"),
    )
    return running.filter(id__in=wrong.values("id"))


# Words that are no status


def nameless_sets(store: Store) -> TaskSetQuerySet:
    """Sets in a status that there is none of; by the index over `finished_at`."""
    recent = Q(finished_at=None) | Q(finished_at__gte=from_now(-RECENT))
    return sets(store).filter(recent).exclude(status__in=KNOWN_SETS)


def name_set(store: Store, taskset_id: uuid.UUID) -> bool:
    """Give a set the status that its members say it is in."""

    def work() -> bool:
        state = locked_row(store, taskset_id)
        if state is None or state.status in KNOWN_SETS:
            return False
        mine = sets(store).filter(id=taskset_id)
        counted = counted_members(store, taskset_id)
        is_over = mine.filter(finished_at__isnull=False).exists() and not counted["remaining"]
        # One that was not finished yet is finished by the sweep if it is over: with its callbacks.
        status = TaskSetStatus.RUNNING
        if is_over:
            status = set_outcome(failed=counted["failed"], revoked=counted["revoked"])
        times = {} if is_over else {"finished_at": None, "announced_at": None}
        write_counts(mine, counted, status=status, **times)
        logger.warning("taskset repaired id=%s status=%s was=%r", taskset_id, status, state.status)
        return True

    return store.run(work)


def sets_with_nameless_subtasks(store: Store, running: TaskSetQuerySet) -> list[TaskSetQuerySet]:
    """Sets with subtasks in a status that there is none of: members of those that run, callbacks
    of those that finished not long ago."""
    subtasks = SubtaskRecord.objects.using(store.alias).order_by().filter(taskset=OuterRef("pk"))
    nameless = subtasks.exclude(status__in=KNOWN)
    recent = sets(store).finished().filter(has_callbacks=True, finished_at__gte=from_now(-RECENT))
    return [
        running.filter(Exists(nameless)),
        recent.filter(Exists(nameless.filter(position__lt=0))),
    ]


def fail_nameless(store: Store, taskset_id: uuid.UUID) -> bool:
    """End the subtasks of a set that are in no status: nobody knows whether they were executed."""

    def work() -> bool:
        locked_row(store, taskset_id)
        subtasks = SubtaskRecord.objects.using(store.alias).filter(taskset_id=taskset_id)
        nameless = store.locked(subtasks.exclude(status__in=KNOWN), skip=True)
        found = dict(nameless.values_list("id", "status")[:CHUNK])
        for key, word in found.items():
            reason = f"its status was {word!r}, which there is none of"
            subtasks.filter(id=key).update(
                status=SubtaskStatus.FAILED, reason=reason, finished_at=Now(), expires_at=None
            )
            logger.warning("subtask repaired id=%s status=FAILED was=%r", key, word)
        return bool(found)

    return store.run(work)


# Places


def sets_with_misplaced_members(store: Store) -> TaskSetQuerySet:
    """Running sets with members whose positions are not those of members: they would not be
    counted as what they are."""
    subtasks = SubtaskRecord.objects.using(store.alias).order_by().filter(taskset=OuterRef("pk"))
    misplaced = Exists(subtasks.filter(MISPLACED, position=None)) | Exists(
        subtasks.filter(MISPLACED, position__lt=0)
    )
    return sets(store).running().filter(misplaced)


MISPLACED: Final = Q(role=Role.MEMBER) & (Q(position=None) | Q(position__lt=0))


def place(store: Store, taskset_id: uuid.UUID) -> bool:
    """Give such members the positions after the last one."""

    def work() -> bool:
        locked_row(store, taskset_id)
        subtasks = SubtaskRecord.objects.using(store.alias).filter(taskset_id=taskset_id)
        rows = store.locked(subtasks.filter(MISPLACED), skip=True)
        found = dict(rows.values_list("id", "position")[:CHUNK])
        last = members(store, taskset_id).aggregate(last=Max("position"))["last"]
        for position, (key, was) in enumerate(
            found.items(), start=(-1 if last is None else last) + 1
        ):
            subtasks.filter(id=key).update(position=position)
            logger.warning("subtask repaired id=%s position=%s was=%s", key, position, was)
        return bool(found)

    return store.run(work)


# Holders


def free_unheld(store: Store) -> int:
    """Give back what is RUNNING and held by nobody; how many."""
    running = SubtaskRecord.objects.using(store.alias).filter(status=SubtaskStatus.RUNNING)

    def work() -> list[uuid.UUID]:
        rows = store.locked(running.filter(worker_id=None), skip=True)
        found = list(rows.values_list("id", flat=True)[:CHUNK])
        SubtaskRecord.objects.using(store.alias).filter(id__in=found).update(
            status=SubtaskStatus.READY, claimed_at=None
        )
        return found

    freed = store.run(work)
    for key in freed:
        logger.warning("subtask repaired id=%s status=READY: nobody held it", key)
    return len(freed)


def sets_finished_too_soon(store: Store) -> TaskSetQuerySet:
    """Finished sets of which a worker holds a member: what comes of it cannot be counted."""
    held = SubtaskRecord.objects.using(store.alias).order_by()
    held = held.filter(status=SubtaskStatus.RUNNING, position__gte=0)
    finished = sets(store).finished().filter(discarded_at=None)
    return finished.filter(id__in=held.values("taskset_id"))


def reopen(store: Store, taskset_id: uuid.UUID) -> bool:
    """Let a finished set run on, since a member of it does. What has been released stays so."""

    def work() -> bool:
        state = locked_row(store, taskset_id)
        counted = counted_members(store, taskset_id)
        if state is None or state.status not in FINISHED_SETS or not counted["remaining"]:
            return False
        mine = sets(store).filter(id=taskset_id)
        write_counts(
            mine, counted, status=TaskSetStatus.RUNNING, finished_at=None, announced_at=None
        )
        logger.warning("taskset repaired id=%s counts=%s: it was not over", taskset_id, counted)
        return True

    return store.run(work)


# Generations


def misnumbered(store: Store) -> TaskSetQuerySet:
    """Sets whose generation is not that of their newest callbacks, which are made with it."""
    callbacks = SubtaskRecord.objects.using(store.alias).order_by()
    callbacks = callbacks.filter(taskset=OuterRef("pk"), position__lt=0).exclude(role=Role.MEMBER)
    with_callbacks = sets(store).filter(has_callbacks=True)
    mine = with_callbacks.running() | with_callbacks.finished().filter(
        finished_at__gte=from_now(-RECENT)
    )
    others = callbacks.exclude(generation=OuterRef("generation"))
    return mine.filter(Exists(others)).exclude(
        Exists(callbacks.filter(generation=OuterRef("generation")))
    )


def renumber(store: Store, taskset_id: uuid.UUID) -> bool:
    """Give a set the generation of its newest callbacks, so that they are released."""

    def work() -> bool:
        state = locked_row(store, taskset_id)
        subtasks = SubtaskRecord.objects.using(store.alias).order_by()
        newest = subtasks.filter(taskset_id=taskset_id, position__lt=0).aggregate(
            generation=Max("generation")
        )["generation"]
        if state is None or newest is None or newest == state.generation:
            return False
        sets(store).filter(id=taskset_id).update(generation=newest)
        message = "taskset repaired id=%s generation=%s was=%s"
        logger.warning(message, taskset_id, newest, state.generation)
        return True

    return store.run(work)
