"""Steering sets: pause and resume, retry what failed, run a set again.

A set's row is locked first here, and asked whether what was asked of it still holds: of a pause
and a resume at the same time the later one wins. Its members are then locked as far as nobody else
has locked them, so that this waits for no one who waits for the set.
"""

from __future__ import annotations

import datetime
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db.models import F, Q
from django.utils import timezone

from .announcing import tell_on_commit
from .completion import locked_state, nothing, settle
from .conf import current
from .control import FIRST_OF_ALL
from .enqueueing import run_eagerly, tell_enqueued
from .exceptions import UnknownId
from .ids import new_id
from .models import ErrorGroupRecord, SubtaskRecord, TaskSetRecord
from .packing import CLAIM_STEP
from .pausing import hold_back, let_go
from .querysets import SubtaskQuerySet
from .slicing import SLICE, slices
from .spooling import Spool
from .statuses import (
    FINISHED_SETS,
    RevokeFlag,
    Role,
    SubtaskStatus,
    TaskSetStatus,
    callback_position,
)
from .store import get_store
from .store.contract import NewSubtask, SetState, Store, batches
from .store.moments import Now
from .wakeups import wake_on_commit

ENDED_BADLY = (SubtaskStatus.FAILED, SubtaskStatus.REVOKED)
# What a subtask is given back with when it is to be executed as if for the first time. Its claims
# go on: a fence is never issued twice. Its errors stay, as its history.
AFRESH: dict[str, Any] = {
    "reason": "",
    "revoke_flag": RevokeFlag.NONE,
    "worker_id": None,
    "retries": 0,
    "crashes": 0,
    "deferrals": 0,
    "claimed_at": None,
    "started_at": None,
    "finished_at": None,
    "return_value": None,
    "error_fingerprint": "",
    "run_after": None,
    "expires_at": None,
}
# What a new subtask has of the one that it repeats.
COPIED = (
    "weight", "task_name", "args", "kwargs", "options", "links", "queue_name", "priority",
)  # fmt: skip


# Pause and resume


def pause_set(taskset_id: uuid.UUID) -> bool:
    """Hold back the members of a running set that no worker has claimed; whether it was running.

    Those that execute go on, and are recorded. In chunks, after the mark is committed.
    """
    store = get_store()
    sets = TaskSetRecord.objects.using(store.alias).running().filter(paused_at=None)
    paused = store.run(lambda: store.update_set(sets, taskset_id, paused_at=Now()))
    for _ in hold_back(store, taskset_id):
        pass
    return paused


def resume_set(taskset_id: uuid.UUID) -> bool:
    """Let the members of a paused set be claimed again; whether it was paused."""
    store = get_store()
    sets = TaskSetRecord.objects.using(store.alias).running().filter(paused_at__isnull=False)
    resumed = store.run(lambda: store.update_set(sets, taskset_id, paused_at=None))
    for ids in let_go(store, taskset_id):
        run_eagerly(store, ids)
    return resumed


# Retry


@dataclass(slots=True)
class _Taken:
    """What has been taken back to be executed again."""

    count: int = 0
    failed: int = 0
    """How many of them had failed; the others were revoked."""
    marks: Counter[str] = field(default_factory=Counter)
    """Their error fingerprints."""
    queues: set[str] = field(default_factory=set)
    ids: list[uuid.UUID] = field(default_factory=list)
    """Kept for who executes them here and now, under ALWAYS_EAGER."""


def retry_failed_set(taskset_id: uuid.UUID, *, fingerprint: str | None = None) -> int:
    """Take FAILED and REVOKED members back to be executed again; how many.

    With a `fingerprint`, only the members that failed with that error. While the set runs they
    join it again; a finished set runs again, in a new generation with callbacks of its own, and
    so does one that was being revoked. Failures that stay count against its limits no more. All
    in one transaction, or in the caller's.
    """
    store = get_store()
    wanted = Q(status__in=ENDED_BADLY)
    if fingerprint is not None:
        wanted = Q(status=SubtaskStatus.FAILED, error_fingerprint=fingerprint)

    def work() -> _Taken:
        parts = (part.filter(wanted) for part in slices(store, taskset_id))
        return _take_back(store, taskset_id, parts)

    taken = store.run(work)
    run_eagerly(store, taken.ids)
    return taken.count


def retry_subtasks(ids: Sequence[uuid.UUID]) -> int:
    """Take those of `ids` back that are FAILED or REVOKED; how many. See retry_failed_set().

    A callback is executed again by itself; one that was not needed stays as it is.
    """
    store = get_store()
    rows = SubtaskRecord.objects.using(store.alias).filter(status__in=ENDED_BADLY).order_by()
    members: dict[Any, list[uuid.UUID]] = {}
    callbacks: dict[Any, list[uuid.UUID]] = {}
    alone: list[uuid.UUID] = []
    for batch in batches(ids, SLICE):
        for row in rows.filter(id__in=batch).only("taskset_id", "role", "reason"):
            if row.taskset_id is None:
                alone.append(row.id)
            elif row.role == Role.MEMBER:
                members.setdefault(row.taskset_id, []).append(row.id)
            else:
                callbacks.setdefault(row.taskset_id, []).append(row.id)
    taken: list[_Taken] = []
    for taskset_id in sorted(members.keys() | callbacks.keys()):
        # At once for each set, which could end between two halves of them.
        parts = [rows.filter(id__in=batch) for batch in batches(members.get(taskset_id, ()), SLICE)]
        if parts:
            taken.append(store.run(partial(_take_back, store, taskset_id, parts)))
        if keys := callbacks.get(taskset_id):
            of_set = rows.filter(id__in=keys)
            taken.append(store.run(partial(_take_back_callbacks, store, taskset_id, of_set)))
    taken += [
        store.run(partial(_take_back_alone, store, rows.filter(id__in=batch)))
        for batch in batches(alone, SLICE)
    ]
    run_eagerly(store, [key for each in taken for key in each.ids])
    return sum(each.count for each in taken)


def _take_back(store: Store, taskset_id: uuid.UUID, parts: Iterable[SubtaskQuerySet]) -> _Taken:
    """Take back members of a set; a step of a transaction, which holds the set's row from now."""
    taken, state = _Taken(), locked_state(store, taskset_id)
    if state is None or state.discarded_at is not None:
        return taken
    is_over = state.status in FINISHED_SETS
    is_paused = state.paused_at is not None and not is_over
    again = AFRESH | {
        "status": SubtaskStatus.WAITING if is_paused else SubtaskStatus.READY,
        "generation": state.generation + is_over,
    }
    for part in parts:
        _take_back_rows(store, part, again, taken)
    if not taken.count:
        return taken
    if is_over:
        _reopen(store, state)
    sets = TaskSetRecord.objects.using(store.alias).filter(id=taskset_id)
    sets.update(
        remaining=F("remaining") + taken.count,
        failed=F("failed") - taken.failed,
        revoked=F("revoked") - (taken.count - taken.failed),
        forgiven=state.failed - taken.failed,
        revoke_requested_at=None,
        revoke_reason="",
    )
    _uncount_errors(store, taskset_id, taken.marks)
    wake_on_commit(store, taken.queues)
    return taken


def _take_back_rows(
    store: Store, rows: SubtaskQuerySet, again: Mapping[str, Any], taken: _Taken
) -> None:
    columns = ("id", "status", "error_fingerprint", "queue_name")
    found = list(store.locked(rows, skip=True).values_list(*columns))
    ids = [key for key, *_ in found]
    SubtaskRecord.objects.using(store.alias).filter(id__in=ids).update(**again)
    taken.count += len(found)
    taken.failed += sum(status == SubtaskStatus.FAILED for _, status, _, _ in found)
    failed = (mark for _, status, mark, _ in found if status == SubtaskStatus.FAILED)
    taken.marks.update(filter(None, failed))
    taken.queues.update(queue for *_, queue in found)
    if current().ALWAYS_EAGER:
        taken.ids += ids


def _take_back_callbacks(store: Store, taskset_id: uuid.UUID, rows: SubtaskQuerySet) -> _Taken:
    """Take back callbacks that their set has come to, and whose outcome it had, unless it is being
    deleted; a step of a transaction."""
    state = locked_state(store, taskset_id)
    if state is None or state.discarded_at is not None:
        return _Taken()
    newest = state.generation - (state.status not in FINISHED_SETS)
    # No generation but the last one can have succeeded: there was something to retry.
    succeeded = Q(generation=state.generation if state.status == TaskSetStatus.SUCCESSFUL else 0)
    not_needed = (succeeded & Q(role=Role.ON_FAILURE)) | (~succeeded & Q(role=Role.ON_SUCCESS))
    return _take_back_alone(store, rows.filter(generation__lte=newest).exclude(not_needed))


def _take_back_alone(store: Store, rows: SubtaskQuerySet) -> _Taken:
    taken = _Taken()
    _take_back_rows(store, rows, AFRESH | {"status": SubtaskStatus.READY}, taken)
    wake_on_commit(store, taken.queues)
    return taken


def _reopen(store: Store, state: SetState) -> None:
    """Let a finished set, whose row is locked, run again, in a new generation."""
    generation = state.generation + 1
    TaskSetRecord.objects.using(store.alias).filter(id=state.id).update(
        generation=generation,
        status=TaskSetStatus.RUNNING,
        finished_at=None,
        announced_at=None,
        paused_at=None,
    )
    if state.has_callbacks:
        callbacks = SubtaskRecord.objects.using(store.alias).callbacks()
        mine = callbacks.filter(taskset_id=state.id, generation=state.generation)
        now = timezone.now()
        store.insert(
            [
                copied(row, taskset_id=state.id, generation=generation, now=now)
                for row in mine.order_by()
            ]
        )


def _uncount_errors(store: Store, taskset_id: uuid.UUID, marks: Counter[str]) -> None:
    """Take retried members out of their error groups. The set's row is locked: no one else does."""
    groups = ErrorGroupRecord.objects.using(store.alias).filter(taskset_id=taskset_id)
    for mark, count in marks.items():
        groups.filter(fingerprint=mark).update(count=F("count") - count)
    groups.filter(count__lte=0).delete()


# Run again


def rerun_set(taskset_id: uuid.UUID) -> uuid.UUID:
    """Apply a new set with the same members, callbacks and policy; returns its id.

    It knows the old one as its `origin`. Raises UnknownId if there is no such set, or if it is
    being deleted.
    """
    store = get_store()
    old = TaskSetRecord.objects.using(store.alias).filter(id=taskset_id).first()
    if old is None or old.status == TaskSetStatus.SAVED or old.discarded_at is not None:
        raise UnknownId(f"no task set with the id {taskset_id} has been applied")
    key, now = new_id(), timezone.now()
    total = 0
    with Spool() as spool:
        for row in _copies(store, old, key, now):
            spool.append(row)
            total += row.role == Role.MEMBER
        record = _record_again(old, key, now, total)

        def work() -> list[uuid.UUID]:
            _refuse_discarded(store, taskset_id)
            record.save(using=store.alias, force_insert=True)
            store.insert(spool)
            tell_enqueued(store, key, total)
            settled = settle(store, [] if total else [nothing(key)])
            wake_on_commit(store, spool.queues | {one.queue_name for one in settled.released})
            tell_on_commit(store, settled)
            return [callback.id for callback in settled.released]

        released = store.run(work)
        if current().ALWAYS_EAGER:
            run_eagerly(store, [*(uuid.UUID(row.id) for row in spool), *released])
    return key


def _copies(
    store: Store, old: TaskSetRecord, key: uuid.UUID, now: datetime.datetime
) -> Iterator[NewSubtask]:
    wanted = Q(role=Role.MEMBER) | Q(generation=old.generation)
    for part in slices(store, old.id, start=FIRST_OF_ALL):
        rows = part.filter(wanted).only("role", "position", *COPIED)
        for row in rows.order_by("position"):
            yield copied(row, taskset_id=key, generation=1, now=now)


def _refuse_discarded(store: Store, taskset_id: uuid.UUID) -> None:
    """Raise UnknownId if part of the set may be gone already. A step of a transaction."""
    state = locked_state(store, taskset_id)
    if state is None or state.discarded_at is not None:
        raise UnknownId(f"the task set {taskset_id} is being deleted")


def copied(
    row: SubtaskRecord, *, taskset_id: uuid.UUID, generation: int, now: datetime.datetime
) -> NewSubtask:
    """A new subtask that makes the same call in the same role."""
    position = row.position or 0
    status = SubtaskStatus.READY
    order = int(now.timestamp() * 1_000_000) + max(position, 0) * CLAIM_STEP
    if row.role != Role.MEMBER:
        position, status = callback_position(Role(row.role), generation), SubtaskStatus.WAITING
    return NewSubtask(
        id=new_id().hex,
        taskset_id=taskset_id.hex,
        role=row.role,
        position=position,
        generation=generation,
        **{name: getattr(row, name) for name in COPIED},
        claim_order=order,
        run_after=None,
        expires_at=None,
        status=status,
        enqueued_at=now,
    )


def _record_again(
    old: TaskSetRecord, key: uuid.UUID, now: datetime.datetime, total: int
) -> TaskSetRecord:
    return TaskSetRecord(
        id=key,
        name=old.name,
        total=total,
        remaining=total,
        max_failures=old.max_failures,
        max_failures_percent=old.max_failures_percent,
        has_callbacks=old.has_callbacks,
        metadata=old.metadata,
        owner_id=old.owner_id,
        related_type_id=old.related_type_id,
        related_id=old.related_id,
        origin_id=old.id,
        enqueued_at=now,
        sealed_at=now,
    )
