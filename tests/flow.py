"""Rows, sets and outcomes for tests of the store and of the flow."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from django.utils import timezone

from django_tasksets.ids import new_id
from django_tasksets.maintenance import register
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.recording import Recorded, record
from django_tasksets.statuses import Role, SubtaskStatus, callback_position
from django_tasksets.store.contract import Claimed, NewSubtask, Outcome, Store

CALLBACKS = (Role.ON_SUCCESS, Role.ON_FAILURE, Role.ON_FINISH)


def new_row(**columns: Any) -> NewSubtask:
    """A READY subtask of no set."""
    row = NewSubtask(
        id=new_id().hex,
        taskset_id=None,
        role=Role.MEMBER,
        position=None,
        generation=1,
        weight=1,
        task_name="tests.tasks.noop",
        args="[]",
        kwargs="{}",
        options="",
        links="",
        queue_name="default",
        priority=0,
        claim_order=time.time_ns() // 1000,
        run_after=None,
        expires_at=None,
        status=SubtaskStatus.READY,
        enqueued_at=timezone.now(),
    )
    return row._replace(**columns)


def key_of(row: NewSubtask) -> uuid.UUID:
    return uuid.UUID(row.id)


def enqueue(store: Store, count: int = 1, **columns: Any) -> list[uuid.UUID]:
    """Enqueue subtasks of no set; their ids."""
    rows = [new_row(**columns) for _ in range(count)]
    store.run(lambda: store.insert(rows))
    return [key_of(row) for row in rows]


def member_rows(taskset_id: uuid.UUID, count: int, **columns: Any) -> list[NewSubtask]:
    return [
        new_row(**{"taskset_id": taskset_id.hex, "position": position} | columns)
        for position in range(count)
    ]


def callback_rows(
    taskset_id: uuid.UUID, roles: Iterable[Role], generation: int = 1
) -> list[NewSubtask]:
    return [
        new_row(
            taskset_id=taskset_id.hex,
            role=role,
            position=callback_position(role, generation),
            generation=generation,
            status=SubtaskStatus.WAITING,
            queue_name="callbacks",
        )
        for role in roles
    ]


def make_set(
    store: Store,
    count: int = 2,
    *,
    callbacks: Sequence[Role] = (),
    sealed: bool = True,
    member: dict[str, Any] | None = None,
    **columns: Any,
) -> TaskSetRecord:
    """A running set with so many READY members, and callbacks."""
    (taskset,) = make_sets(
        store, 1, count, callbacks=callbacks, sealed=sealed, member=member, **columns
    )
    return taskset


def make_sets(
    store: Store,
    sets: int,
    count: int = 2,
    *,
    callbacks: Sequence[Role] = (),
    sealed: bool = True,
    member: dict[str, Any] | None = None,
    **columns: Any,
) -> list[TaskSetRecord]:
    """Several such sets, in few statements."""
    now = timezone.now()
    made = [
        TaskSetRecord(
            **{
                "total": count,
                "remaining": count,
                "sealed_at": now if sealed else None,
                "has_callbacks": bool(callbacks),
            }
            | columns
        )
        for _ in range(sets)
    ]
    rows = [row for one in made for row in member_rows(one.id, count, **(member or {}))]
    rows += [row for one in made for row in callback_rows(one.id, callbacks)]

    def work() -> None:
        TaskSetRecord.objects.using(store.alias).bulk_create(made)
        store.insert(rows)

    store.run(work)
    return made


def new_worker(store: Store) -> uuid.UUID:
    """A worker that is alive."""
    worker_id = new_id()
    register(store, worker_id, queues=(), pid=1)
    return worker_id


def claim_members(store: Store, worker_id: uuid.UUID, *sets: TaskSetRecord) -> list[Claimed]:
    """Claim the READY members of the sets, by set and position."""
    members = SubtaskRecord.objects.using(store.alias).ready()
    ids: list[uuid.UUID] = []
    for start in range(0, len(sets), 500):
        some = members.filter(taskset_id__in=[one.id for one in sets[start : start + 500]])
        rows = some.filter(position__gte=0).order_by("taskset_id", "position")
        ids += rows.values_list("id", flat=True)
    claimed = {one.id: one for one in store.claim_ids(worker_id, ids)}
    return [claimed[key] for key in ids]


def outcome(claimed: Claimed, status: str = "SUCCESSFUL", **fields: Any) -> Outcome:
    """The claimed subtask executed, and this came of it."""
    given: dict[str, Any] = {"started": time.monotonic() - 0.001}
    if status == "SUCCESSFUL":
        given |= {"return_value": "null"}
    if status == "FAILED":
        given |= {"error": "{}", "error_fingerprint": "f", "error_class": "E"}
    return Outcome(claimed, SubtaskStatus(status), **(given | fields))


def record_all(
    store: Store, worker_id: uuid.UUID, claimed: Iterable[Claimed], status: str = "SUCCESSFUL"
) -> Recorded:
    """Record them all with this outcome."""
    return record(store, worker_id, [outcome(one, status) for one in claimed])


def fetch(key: uuid.UUID) -> SubtaskRecord:
    return SubtaskRecord.objects.get(id=key)


def statuses_of(ids: Iterable[uuid.UUID]) -> list[str]:
    """The statuses in the order of `ids`."""
    found = dict(SubtaskRecord.objects.filter(id__in=ids).values_list("id", "status"))
    return [found[key] for key in ids]


def callbacks_of(taskset: TaskSetRecord, generation: int = 1) -> dict[str, str]:
    """The statuses of the set's callbacks, by role."""
    rows = SubtaskRecord.objects.filter(taskset=taskset, position__lt=0, generation=generation)
    return dict(rows.values_list("role", "status"))


def counts_of(taskset: TaskSetRecord) -> tuple[int, int, int, int, int]:
    """total, remaining, successful, failed, revoked."""
    names = ("total", "remaining", "successful", "failed", "revoked")
    counts: tuple[int, int, int, int, int] = TaskSetRecord.objects.values_list(*names).get(
        id=taskset.id
    )
    return counts


def assert_counts_add_up() -> None:
    """Every set's counts are those of its members, and no finished set has an unfinished one."""
    for taskset in TaskSetRecord.objects.exclude(status="SAVED"):
        members = SubtaskRecord.objects.filter(taskset=taskset, position__gte=0)
        by_status = list(members.values_list("status", flat=True))
        ended = [by_status.count(status) for status in ("SUCCESSFUL", "FAILED", "REVOKED")]
        assert counts_of(taskset) == (len(by_status), len(by_status) - sum(ended), *ended)
        if taskset.is_finished:
            assert taskset.remaining == 0
