"""Puts calls into the database, in the caller's transaction: nothing is half-written."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from django.db import IntegrityError, transaction
from django.db.models import F, Max

from . import signals
from .announcing import tell_on_commit
from .calls import Call, SetSpec
from .completion import Settled, nothing, settle
from .conf import current
from .context import current_request
from .control import revoke_rest
from .draining import Drain, ready_callbacks
from .exceptions import (
    AlreadyApplied,
    DuplicateId,
    TaskSetSealed,
    UnknownId,
)
from .ids import parse_id
from .models import SubtaskRecord, TaskSetRecord
from .packing import Packer
from .setrows import callback_rows, set_record
from .spooling import Spool
from .statuses import SubtaskStatus, TaskSetStatus
from .store import get_store
from .store.contract import NewSubtask, Store, batches
from .store.moments import Now
from .wakeups import is_by_notify, wake_on_commit

CHUNK = 500


def enqueue(call: Call) -> uuid.UUID:
    """Enqueue a subtask that belongs to no set; returns its id.

    Raises InvalidCall, InvalidOption, InvalidId, NotStorable, UnknownTask or DuplicateId. Nothing
    is written then, and the caller's transaction can go on.
    """
    store = get_store()
    rows = [Packer(store).member(call, None)]

    with naming_what_is_taken(store, rows):
        store.run_statement(lambda: _insert_few(store, rows, ready_queues(rows)))
    key = uuid.UUID(rows[0].id)
    run_eagerly(store, [key])
    return key


def enqueue_set(spec: SetSpec, calls: Iterable[Call]) -> int:
    """Enqueue a set with its members and callbacks; returns the number of members.

    All calls are drained and encoded before the first write, to a temporary file if there are
    many. Set, callbacks and members are then written in one transaction, or in the caller's. A
    set without members finishes at once. Raises what enqueue() does, and AlreadyApplied.
    """
    store = get_store()
    packer = Packer(store, taskset_id=spec.id)
    callbacks = callback_rows(packer, spec)
    record = set_record(store, spec, packer.now)
    with Spool() as spool:
        for position, call in enumerate(calls):
            spool.append(packer.member(call, position, f"subtask {position}"))
        record.total = record.remaining = len(spool)
        is_large = len(callbacks) + len(spool) > store.set_in_one_statement

        is_one_statement = spec.is_new and not is_large and record.total > 0

        def work() -> Settled:
            first = callbacks if is_large else [*callbacks, *spool]
            if is_one_statement:
                _insert_few(store, first, spool.queues, record)
                return settle_inserted(store, [record], set())
            if spec.is_new:
                store.insert_set(record, first)
            else:
                _insert_set(store, record, spool, first)
            if is_large:
                store.insert(spool)
            return settle_inserted(store, [record], spool.queues)

        with naming_what_is_taken(store, chain(callbacks, spool), spec.id):
            settled = (store.run_statement if is_one_statement else store.run)(work)
        if current().ALWAYS_EAGER:
            released = [callback.id for callback in settled.released]
            run_eagerly(store, [*(uuid.UUID(row.id) for row in spool), *released])
        return record.total


def add(taskset_id: uuid.UUID, calls: Iterable[Call]) -> list[uuid.UUID]:
    """Add members to a set that is open, or of which the caller is an unfinished member.

    Returns their ids. One transaction, or the caller's, which then holds the set's row until its
    end. Raises TaskSetSealed if the set takes no more, UnknownId, and what enqueue() does.
    """
    store = get_store()
    packer = Packer(store, taskset_id=taskset_id)
    with Spool() as spool:
        for index, call in enumerate(calls):
            spool.append(packer.member(call, index, f"subtask {index}"))

        def work() -> None:
            first, generation, is_paused = _make_room(store, taskset_id, len(spool))
            rows = (packer.at(row, first + i, generation) for i, row in enumerate(spool))
            if is_paused:
                rows = (row._replace(status=SubtaskStatus.WAITING.value) for row in rows)
            store.insert(rows)
            wake_on_commit(store, set() if is_paused else spool.queues)

        if len(spool):
            with naming_what_is_taken(store, spool):
                store.run(work)
        keys = [uuid.UUID(row.id) for row in spool]
    run_eagerly(store, keys)
    return keys


def seal(taskset_id: uuid.UUID) -> None:
    """Let an open set finish once its members have; at once if they have. Idempotent."""
    store = get_store()

    def work() -> Settled:
        sets = TaskSetRecord.objects.using(store.alias).running().filter(sealed_at=None)
        if not store.update_set(sets, taskset_id, sealed_at=Now()):
            return Settled()
        settled = settle(store, [nothing(taskset_id)])
        wake_on_commit(store, {callback.queue_name for callback in settled.released})
        tell_on_commit(store, settled)
        return settled

    settled = store.run(work)
    for key in settled.over_limit:
        revoke_rest(store, key)
    run_released(taskset_id)


def save_set(taskset_id: uuid.UUID, subtask_ids: Sequence[uuid.UUID]) -> None:
    """Write a set's ids down before it is applied; a set that has a row already is left alone."""
    store = get_store()
    TaskSetRecord.objects.using(store.alias).get_or_create(
        id=taskset_id,
        defaults={
            "status": TaskSetStatus.SAVED,
            "saved_ids": json.dumps([key.hex for key in subtask_ids]),
        },
    )


def settle_inserted(store: Store, records: Iterable[TaskSetRecord], queues: set[str]) -> Settled:
    """Finish those of the sets that there is nothing to wait for; once the current transaction
    commits, tell of all of them, and wake the workers of these queues. A step of the transaction
    that has inserted the sets with their members."""
    empty = []
    for record in records:
        tell_enqueued(store, record.id, record.total)
        if not record.total and record.sealed_at is not None:
            empty.append(nothing(record.id))
    settled = settle(store, empty) if empty else Settled()
    wake_on_commit(store, queues | {callback.queue_name for callback in settled.released})
    tell_on_commit(store, settled)
    return settled


def tell_enqueued(store: Store, taskset_id: uuid.UUID, total: int) -> None:
    """Send taskset_enqueued for a set once the current transaction commits."""
    transaction.on_commit(
        lambda: signals.send(
            signals.taskset_enqueued, TaskSetRecord, taskset_id=taskset_id, total=total
        ),
        using=store.alias,
        robust=True,
    )


def ready_queues(rows: Iterable[NewSubtask]) -> set[str]:
    """The queues of those that can be claimed now."""
    return {row.queue_name for row in rows if row.status == SubtaskStatus.READY}


# What is there already


def _insert_set(
    store: Store, record: TaskSetRecord, spool: Spool, first: Sequence[NewSubtask]
) -> None:
    """Write the set's row, in place of a saved one with the same subtasks, and the first rows."""
    sets = TaskSetRecord.objects.using(store.alias)
    saved = sets.filter(id=record.id).values_list("status", "saved_ids").first()
    if saved is None:
        store.insert_set(record, first)
        return
    status, saved_ids = saved
    if status != TaskSetStatus.SAVED:
        raise AlreadyApplied(f"the task set {record.id} has been applied already")
    if sorted(json.loads(saved_ids or "[]")) != sorted(row.id for row in spool):
        raise AlreadyApplied(f"the task set {record.id} was saved with other subtask ids")
    fields = [field.attname for field in record._meta.concrete_fields if not field.primary_key]
    # Guarded by the status: of two that apply the same saved set, one writes.
    mine = sets.filter(id=record.id, status=TaskSetStatus.SAVED, discarded_at=None)
    if not mine.update(**{name: getattr(record, name) for name in fields}):
        raise AlreadyApplied(f"the task set {record.id} has been applied already")
    store.insert(first)


def _make_room(store: Store, taskset_id: uuid.UUID, count: int) -> tuple[int, int, bool]:
    """Count members in before they are inserted, under the set's lock.

    Returns the first position, the generation, and whether the set is paused.
    """
    sets = TaskSetRecord.objects.using(store.alias).filter(id=taskset_id)
    takes_more = sets.running().filter(revoke_requested_at=None)
    request = current_request.get()
    if request is None or request.taskset_id != taskset_id:
        takes_more = takes_more.filter(sealed_at=None)
    more = {"total": F("total") + count, "remaining": F("remaining") + count}
    if not store.update_set(takes_more, taskset_id, **more):
        raise _refusal(sets.first(), taskset_id)
    generation, paused_at = sets.values_list("generation", "paused_at").get()
    subtasks = SubtaskRecord.objects.using(store.alias).filter(taskset_id=taskset_id)
    last = subtasks.filter(position__gte=0).aggregate(last=Max("position"))["last"]
    return (0 if last is None else last + 1), generation, paused_at is not None


def _refusal(record: TaskSetRecord | None, taskset_id: uuid.UUID) -> Exception:
    if record is None:
        return UnknownId(f"no task set {taskset_id}: not applied, not committed, or deleted")
    if record.status == TaskSetStatus.SAVED:
        because = "is saved, and not applied yet"
    elif record.is_finished:
        because = f"is finished ({record.status})"
    elif record.revoke_requested_at is not None:
        because = f"is being revoked ({record.revoke_reason})"
    else:
        because = "is sealed"
    return TaskSetSealed(f"the task set {taskset_id} {because}. {TaskSetSealed.__doc__}")


# Writing


def _insert_few(
    store: Store,
    rows: Sequence[NewSubtask],
    queues: set[str],
    record: TaskSetRecord | None = None,
) -> None:
    """Insert subtasks, and their set if there is one, by one statement; wake the workers of these
    queues once that is committed."""
    if queues and is_by_notify(store) and store.insert_and_notify(rows, record):
        return
    if record is None:
        store.insert(rows)
    else:
        store.insert_set(record, rows)
    wake_on_commit(store, queues)


@contextmanager
def naming_what_is_taken(
    store: Store, rows: Iterable[NewSubtask], taskset_id: uuid.UUID | None = None
) -> Iterator[None]:
    """If an id is taken, say which."""
    try:
        yield
    except IntegrityError as error:
        sets = TaskSetRecord.objects.using(store.alias)
        if taskset_id is not None and sets.filter(id=taskset_id).exists():
            raise AlreadyApplied(f"the task set {taskset_id} has been applied already") from error
        taken = _taken(store, rows)
        if taken is None:
            raise
        raise DuplicateId(f"{taken}; nothing was written. Ids are for one subtask each") from error


def _taken(store: Store, rows: Iterable[NewSubtask]) -> str | None:
    """Which of the rows' ids is taken, in words."""
    subtasks = SubtaskRecord.objects.using(store.alias)
    seen: set[str] = set()
    for batch in batches((row.id for row in rows), CHUNK):
        for key in batch:
            if key in seen:
                return f"two of the subtasks have the id {parse_id(key)}"
            seen.add(key)
        found = subtasks.filter(id__in=batch).values_list("id", flat=True).first()
        if found is not None:
            return f"a subtask with the id {found} exists already"
    return None


def run_released(taskset_id: uuid.UUID) -> None:
    """Under ALWAYS_EAGER, execute the callbacks of a set that can be claimed now."""
    store = get_store()
    if current().ALWAYS_EAGER:
        run_eagerly(store, ready_callbacks(store, taskset_id))


def run_eagerly(store: Store, ids: Sequence[uuid.UUID]) -> None:
    """Under ALWAYS_EAGER, execute what can be claimed of this now."""
    settings = current()
    if settings.ALWAYS_EAGER and ids:
        with Drain(store, is_eager=True, propagates=settings.EAGER_PROPAGATES) as drain:
            drain.run(ids)
