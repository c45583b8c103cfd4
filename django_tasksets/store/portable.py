"""The store in plain ORM: right on every database that Django knows, fast on none in particular."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from django.db import DatabaseError, OperationalError
from django.db.backends.utils import CursorWrapper
from django.db.models import Case, F, Q, QuerySet, TextField, Value, When
from django.db.models.expressions import DatabaseDefault
from django.db.models.functions import Coalesce, Concat, Greatest, Least, Length
from django.db.models.lookups import LessThan

from ..ids import parse_id
from ..models import SubtaskRecord, TaskSetRecord
from ..querysets import SubtaskQuerySet, TaskSetQuerySet
from ..statuses import RevokeFlag, Role, SubtaskStatus, TaskSetStatus
from .contract import (
    LAST_CLAIM,
    RESULT_FIELDS,
    UNREADABLE,
    Claimed,
    Ended,
    Held,
    NewSubtask,
    Outcome,
    SetState,
    Tally,
    WaitingCallback,
    batches,
    in_claim_order,
    next_claim,
)
from .moments import Now, from_now
from .transactions import Transactions

logger = logging.getLogger("django_tasksets")

REVOKED: Final = SubtaskStatus.REVOKED
# What drivers and Django raise of columns that hold what no code of ours writes: a time that
# Python has none for, for example.
UNREADABLE_ROWS: Final = (ArithmeticError, DatabaseError, TypeError, ValueError)
SET_FIELDS: Final = TaskSetRecord._meta.concrete_fields
# What is over expires no more: so the index of what may holds nothing else.
OVER: Final = {"finished_at": Now(), "expires_at": None}
# How many characters of a subtask's history are kept; with more it begins anew.
MAX_ERRORS: Final = 262_144
# Values that mean the same to Django and to every driver.
PLAIN: Final = frozenset({int, str, type(None)})
# SQLite before 3.32 takes 999 parameters; a batch of ids stays well below everywhere.
BATCH: Final = 500


class PortableStore(Transactions):
    """Guarded updates through the ORM, with row locks where the database has them."""

    # Enqueue

    def insert_set(self, record: TaskSetRecord, rows: Sequence[NewSubtask]) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(self.set_statement, self.set_values(record))
        self.insert(rows)

    def insert_sets(self, records: Sequence[TaskSetRecord]) -> None:
        for batch in batches(records, BATCH):
            with self.cursor_for(len(batch)) as cursor:
                cursor.executemany(self.set_statement, list(map(self.set_values, batch)))

    @cached_property
    def set_statement(self) -> str:
        """Inserts a set's row. It is the same each time; the ORM would make it anew from the
        model."""
        quote = self.connection.ops.quote_name
        columns = ", ".join(quote(str(field.column)) for field in SET_FIELDS)
        marks = ", ".join(["%s"] * len(SET_FIELDS))
        return f"INSERT INTO {quote(TaskSetRecord._meta.db_table)} ({columns}) VALUES ({marks})"

    def set_values(self, record: TaskSetRecord) -> list[Any]:
        """The values in a set's row, as `set_statement` takes them."""
        connection = self.connection
        values = [(field, _value(record, field)) for field in SET_FIELDS]
        return [
            # Most of it need not go through Django's layers. The keys of a project's users may be
            # of any kind.
            value
            if type(value) in PLAIN and not field.is_relation
            else field.get_db_prep_save(value, connection)
            for field, value in values
        ]

    def cursor_for(self, count: int) -> CursorWrapper:
        """A cursor for a statement about so many rows."""
        return self.connection.cursor()

    def insert(self, rows: Iterable[NewSubtask]) -> None:
        for batch in batches(rows, BATCH):
            SubtaskRecord.objects.using(self.alias).bulk_create(map(_unsaved, batch))

    # Claim

    def claim(self, worker_id: uuid.UUID, queues: Sequence[str], limit: int) -> list[Claimed]:
        # What an idle worker asks takes no lock.
        names = self.with_ready(queues) if queues else self.ready_queues()
        if not names:
            return []
        return self.run(lambda: self._claim_rows(worker_id, self._best(names, limit)))

    def _best(self, queues: Sequence[str], limit: int) -> list[uuid.UUID]:
        """The READY rows that are to be claimed first, by one ordered probe for each queue."""
        features = self.connection.features
        candidates: list[tuple[int, int, uuid.UUID]] = []
        for name in queues:
            ready = self.subtasks.ready().filter(queue_name=name)
            ready = ready.order_by("-priority", "claim_order")
            if features.has_select_for_update_skip_locked:
                ready = ready.select_for_update(
                    skip_locked=True, no_key=features.has_select_for_no_key_update
                )
            best = ready.values_list("priority", "claim_order", "id")[:limit]
            candidates += [(-priority, order, key) for priority, order, key in best]
        candidates.sort()
        return [key for _, _, key in candidates[:limit]]

    def claim_ids(self, worker_id: uuid.UUID, ids: Sequence[uuid.UUID]) -> list[Claimed]:
        return self.run(lambda: self._claim_rows(worker_id, ids))

    def _claim_rows(self, worker_id: uuid.UUID, ids: Sequence[uuid.UUID]) -> list[Claimed]:
        claimed: list[Claimed] = []
        for batch in batches(ids, BATCH):
            ready = self.locked(self.subtasks.ready().filter(id__in=batch), skip=True)
            rows = self.claimed_rows(ready)
            self.subtasks.filter(id__in=[row.id for row in rows]).update(
                status=SubtaskStatus.RUNNING,
                worker_id=worker_id,
                claims=Least(F("claims"), Value(LAST_CLAIM - 1)) + 1,
                claimed_at=Now(),
            )
            claimed += [row._replace(claims=next_claim(row.claims)) for row in rows]
        return in_claim_order(claimed)

    def look_ahead(self, queues: Sequence[str], limit: int) -> list[tuple[uuid.UUID, str]]:
        ready = self.subtasks.ready().filter(crashes=0).order_by("-priority", "claim_order")
        names = list(dict.fromkeys(queues)) or self.ready_queues()
        parts = [ready.filter(queue_name=name).values_list("id", "task_name") for name in names]
        return [row for part in parts for row in part[:limit]]

    def claimed_rows(self, rows: QuerySet[Any, Any]) -> list[Claimed]:
        try:
            return [Claimed._make(row) for row in rows.values_list(*Claimed._fields)]
        except UNREADABLE_ROWS as error:
            if isinstance(error, OperationalError):
                raise
        # One of them is to blame; which, only reading them one by one tells.
        readable: list[Claimed] = []
        for key in list(rows.values_list("id", flat=True)):
            mine = self.subtasks.filter(id=key)
            try:
                readable += [Claimed._make(row) for row in mine.values_list(*Claimed._fields)]
            except UNREADABLE_ROWS as error:
                logger.error("subtask unreadable id=%s error=%r", key, error)
                over = OVER | {"enqueued_at": Now(), "reason": UNREADABLE}
                mine.update(status=SubtaskStatus.FAILED, **over)
        return readable

    def with_ready(self, queues: Sequence[str]) -> list[str]:
        """Those of the queues that have READY subtasks, each once."""
        ready = self.subtasks.ready()
        return [name for name in dict.fromkeys(queues) if ready.filter(queue_name=name).exists()]

    def ready_queues(self) -> list[str]:
        """The queues that have READY subtasks, one index probe each."""
        names: list[str] = []
        while True:
            ready = self.subtasks.ready().order_by("queue_name")
            if names:
                ready = ready.filter(queue_name__gt=names[-1])
            name = ready.values_list("queue_name", flat=True).first()
            if name is None:
                return names
            names.append(name)

    # Record

    def finish(self, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
        held = self.held(worker_id, outcomes)
        for outcome in held:
            self.write(outcome)
        return held

    def held(self, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Lock the rows that are RUNNING under the outcomes' fences; returns those outcomes, with
        copies of what may not be given back as it was: called off, or held back."""
        by_id = {outcome.claimed.id: outcome for outcome in outcomes}
        matching: list[Outcome] = []
        flagged: set[uuid.UUID] = set()
        for batch in batches(sorted(by_id), BATCH):
            for key, claims, flag in self.running(worker_id, batch):
                if by_id[key].claimed.claims == claims:
                    matching.append(by_id[key])
                    if flag:
                        flagged.add(key)
        marks = self._marks(outcome for outcome in matching if not outcome.is_final)
        return [_held_back(outcome, flagged, marks) for outcome in matching]

    def running(
        self, worker_id: uuid.UUID, ids: Sequence[uuid.UUID]
    ) -> Iterable[tuple[uuid.UUID, int, int]]:
        """Lock those of the rows that the worker holds, in the order of their ids: id, claims,
        flag to revoke."""
        mine = self.subtasks.filter(id__in=ids, status=SubtaskStatus.RUNNING, worker_id=worker_id)
        return self.locked(mine, skip=False).values_list("id", "claims", "revoke_flag")

    def _marks(self, given_back: Iterable[Outcome]) -> dict[uuid.UUID | None, Any]:
        """The sets that are paused (None) or being revoked (the moment), of those given back."""
        stopped = self.tasksets.running().filter(
            Q(revoke_requested_at__isnull=False) | Q(paused_at__isnull=False)
        )
        marks: dict[uuid.UUID | None, Any] = {}
        for batch in batches({outcome.claimed.set_that_counts for outcome in given_back}, BATCH):
            sets = stopped.filter(id__in=[key for key in batch if key is not None])
            marks |= dict(sets.values_list("id", "revoke_requested_at"))
        return marks

    def write(self, outcome: Outcome) -> None:
        """Write one outcome to its row, which is locked and known to match."""
        changes: dict[str, Any] = {"status": outcome.status, "reason": outcome.reason}
        if outcome.started is not None:
            changes |= {"attempts": F("attempts") + 1, "deferrals": 0}
            changes |= {"started_at": Coalesce("started_at", from_now(-outcome.age()))}
        if outcome.error:
            line = Value(outcome.error + "\n", output_field=TextField())
            has_room = When(LessThan(Length("errors"), MAX_ERRORS), then=Concat("errors", line))
            changes["errors"] = Case(has_room, default=line)
            changes["error_fingerprint"] = outcome.error_fingerprint
        if outcome.crashed:
            changes["crashes"] = F("crashes") + 1
        if outcome.deferred:
            changes["deferrals"] = F("deferrals") + 1
        if outcome.is_final:
            changes |= OVER | {"return_value": outcome.return_value}
        else:
            changes |= _given_back(outcome)
        self.subtasks.filter(id=outcome.claimed.id).update(**changes)

    def recorded(self, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
        by_fence = {(o.claimed.id, o.claimed.claims): o for o in outcomes}
        final: list[Outcome] = []
        for batch in batches((outcome.claimed.id for outcome in outcomes), BATCH):
            rows = self.subtasks.finished().filter(id__in=batch, worker_id=worker_id)
            for key, claims, status in rows.values_list("id", "claims", "status"):
                outcome = by_fence.get((key, claims))
                if outcome is not None and outcome.status == status:
                    final.append(outcome)
                elif outcome is not None and not outcome.is_final and status == REVOKED:
                    # It would have given the subtask back, and was called off.
                    final.append(outcome.called_off())
        return final

    def free(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        if not self.connection.features.has_select_for_update_skip_locked:
            return list(outcomes)
        ids = {outcome.claimed.id for outcome in outcomes}
        sets = {key for outcome in outcomes if (key := outcome.claimed.set_that_counts) is not None}
        held = self.run(
            lambda: self._held_rows(self.subtasks, ids) | self._held_rows(self.tasksets, sets)
        )
        return [
            outcome
            for outcome in outcomes
            if held.isdisjoint((outcome.claimed.id, outcome.claimed.set_that_counts))
        ]

    def _held_rows(self, rows: Any, ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
        """Those of `ids` that are there and that somebody else has locked."""
        held: set[uuid.UUID] = set()
        for batch in batches(ids, BATCH):
            mine = rows.filter(id__in=batch)
            held.update(mine.values_list("id", flat=True))
            held.difference_update(self.locked(mine, skip=True).values_list("id", flat=True))
        return held

    def update_set(self, sets: TaskSetQuerySet, taskset_id: uuid.UUID, **changes: Any) -> bool:
        return sets.filter(id=taskset_id).update(**changes) == 1

    def count(self, tallies: Sequence[Tally]) -> list[SetState]:
        by_id = {tally.taskset_id: tally for tally in tallies}
        states: list[SetState] = []
        for batch in batches(sorted(by_id), BATCH):
            sets = self.locked(self.tasksets.filter(id__in=batch), skip=False)
            rows = sets.values_list("started_at", *SetState._fields)
            found = [(began, SetState._make(state)) for began, *state in rows]
            self._add([by_id[state.id] for _, state in found])
            self._begin([by_id[state.id] for began, state in found if began is None])
            states += [_counted(state, by_id[state.id]) for _, state in found]
        return states

    def _add(self, tallies: Iterable[Tally]) -> None:
        """Most are alike: one statement for each kind."""
        alike: dict[tuple[int, int, int], list[uuid.UUID]] = {}
        for key, successful, failed, revoked, _ in tallies:
            alike.setdefault((successful, failed, revoked), []).append(key)
        for (successful, failed, revoked), keys in alike.items():
            if finished := successful + failed + revoked:
                self.tasksets.filter(id__in=keys).update(
                    remaining=F("remaining") - finished,
                    successful=F("successful") + successful,
                    failed=F("failed") + failed,
                    revoked=F("revoked") + revoked,
                )

    def _begin(self, tallies: Iterable[Tally]) -> None:
        ages = {tally.taskset_id: tally.age for tally in tallies if tally.age > 0}
        if ages:
            moments = [When(id=key, then=from_now(-age)) for key, age in ages.items()]
            self.tasksets.filter(id__in=list(ages)).update(started_at=Case(*moments))

    def close_sets(self, final: Sequence[tuple[uuid.UUID, TaskSetStatus]]) -> None:
        for status in {status for _, status in final}:
            for batch in batches((key for key, its in final if its == status), BATCH):
                self.tasksets.running().filter(
                    id__in=batch, remaining=0, sealed_at__isnull=False
                ).update(status=status, finished_at=Now(), announced_at=None)

    def waiting_callbacks(self, sets: Sequence[tuple[uuid.UUID, int]]) -> list[WaitingCallback]:
        wanted = set(sets)
        callbacks: list[WaitingCallback] = []
        for batch in batches(sorted({key for key, _ in wanted}), BATCH):
            rows = self.callbacks_of(batch).filter(status=SubtaskStatus.WAITING)
            found = self.locked(rows, skip=False).values_list(*WaitingCallback._fields)
            callbacks += map(WaitingCallback._make, found)
        return [one for one in callbacks if (one.taskset_id, one.generation) in wanted]

    def callbacks_of(self, sets: Sequence[uuid.UUID]) -> SubtaskQuerySet:
        """The callbacks of these sets that may be WAITING, such that no more is locked."""
        return self.subtasks.filter(taskset_id__in=sets, position__lt=0)

    def release_callbacks(
        self, released: Sequence[uuid.UUID], unneeded: Sequence[uuid.UUID], reason: str
    ) -> None:
        waiting = self.subtasks.filter(status=SubtaskStatus.WAITING)
        for batch in batches(released, BATCH):
            # A callback that was given an eta or a countdown waits for that too.
            waiting.filter(id__in=batch).update(status=ready_when_due())
        for batch in batches(unneeded, BATCH):
            waiting.filter(id__in=batch).update(status=SubtaskStatus.REVOKED, reason=reason, **OVER)

    def return_values(
        self, taskset_id: uuid.UUID, after: int, limit: int
    ) -> Sequence[tuple[int, str | None]]:
        members = self.subtasks.filter(taskset_id=taskset_id, position__gt=after)
        page: Any = members.order_by("position").values_list("position", "return_value")[:limit]
        return list(page)

    # Read

    def result_row(self, subtask_id: uuid.UUID) -> Sequence[Any] | None:
        return self.subtasks.filter(id=subtask_id).values_list(*RESULT_FIELDS).first()

    # Revoke

    def revoke(self, ids: Sequence[uuid.UUID], reason: str) -> list[Ended]:
        ended: list[Ended] = []
        for batch in batches(ids, BATCH):
            rows = self.locked(self.subtasks.pending().filter(id__in=batch), skip=True)
            found = [Ended._make(row) for row in rows.values_list(*Ended._fields)]
            self.subtasks.filter(id__in=[row.id for row in found]).update(
                status=SubtaskStatus.REVOKED, reason=reason, **OVER
            )
            ended += found
        return ended

    def flag(self, ids: Sequence[uuid.UUID], flag: int) -> int:
        flagged = 0
        running = self.subtasks.filter(status=SubtaskStatus.RUNNING)
        for batch in batches(ids, BATCH):
            rows = self.locked(running.filter(id__in=batch), skip=True)
            keys = list(rows.values_list("id", flat=True))
            raised = Greatest(F("revoke_flag"), Value(flag))
            flagged += self.subtasks.filter(id__in=keys).update(revoke_flag=raised)
        return flagged

    # Watch

    def flagged(self, worker_id: uuid.UUID) -> list[Held]:
        mine = self.subtasks.filter(status=SubtaskStatus.RUNNING, worker_id=worker_id)
        with_their_set = Q(role=Role.MEMBER, taskset__revoke_requested_at__isnull=False)
        asked = ~Q(revoke_flag=RevokeFlag.NONE) | with_their_set
        rows = mine.filter(asked).values_list(*Held._fields)
        return [Held._make(row) for row in rows]

    def promote(self, limit: int) -> set[str]:
        due = self.subtasks.filter(status=SubtaskStatus.SCHEDULED, run_after__lte=Now())
        ids = list(due.order_by("run_after").values_list("id", flat=True)[:limit])
        return self.run(lambda: self._promote(due, ids)) if ids else set()

    def _promote(self, due: SubtaskQuerySet, ids: Sequence[uuid.UUID]) -> set[str]:
        queues: set[str] = set()
        for batch in batches(ids, BATCH):
            rows = self.locked(due.filter(id__in=batch), skip=True)
            found = dict(rows.values_list("id", "queue_name"))
            mine = self.subtasks.filter(id__in=list(found))
            paused = mine.members().filter(taskset__paused_at__isnull=False)
            held_back = list(paused.values_list("id", flat=True))
            if held_back:
                self.subtasks.filter(id__in=held_back).update(status=SubtaskStatus.WAITING)
            mine.exclude(id__in=held_back).update(status=SubtaskStatus.READY)
            queues |= {name for key, name in found.items() if key not in held_back}
        return queues


def _value(record: TaskSetRecord, field: Any) -> Any:
    value = getattr(record, field.attname)
    return field.db_default if isinstance(value, DatabaseDefault) else value


def ready_when_due() -> Case:
    """The status of what waits for nothing but its time."""
    due = Q(run_after=None) | Q(run_after__lte=Now())
    return Case(When(due, then=Value(SubtaskStatus.READY)), default=Value(SubtaskStatus.SCHEDULED))


def _held_back(
    outcome: Outcome, flagged: set[uuid.UUID], marks: dict[uuid.UUID | None, Any]
) -> Outcome:
    """The outcome, or what is to be written in its place, by `_marks` and the flagged rows."""
    if outcome.is_final:
        return outcome
    key = outcome.claimed.set_that_counts
    if outcome.claimed.id in flagged or marks.get(key) is not None:
        return outcome.called_off()
    return replace(outcome, status=SubtaskStatus.WAITING) if key in marks else outcome


def _unsaved(row: NewSubtask) -> SubtaskRecord:
    values = row._asdict() | {"id": parse_id(row.id)}
    if row.taskset_id is not None:
        values["taskset_id"] = parse_id(row.taskset_id)
    return SubtaskRecord(**values)


def _given_back(outcome: Outcome) -> dict[str, Any]:
    changes: dict[str, Any] = {"worker_id": None, "claimed_at": None}
    if outcome.has_time:
        changes["run_after"] = outcome.run_after or from_now(outcome.delay)
    if outcome.args is not None:
        changes["args"] = outcome.args
    if outcome.kwargs is not None:
        changes["kwargs"] = outcome.kwargs
    if outcome.retried:
        changes["retries"] = F("retries") + 1
    return changes


def _counted(state: SetState, tally: Tally) -> SetState:
    return state._replace(
        remaining=state.remaining - tally.successful - tally.failed - tally.revoked,
        failed=state.failed + tally.failed,
        revoked=state.revoked + tally.revoked,
    )


def written(outcome: Outcome) -> tuple[Any, ...]:
    """What an outcome that is no success changes, for statements that write many at once."""
    is_final = outcome.is_final
    return (
        str(outcome.status),
        outcome.reason,
        f"{outcome.error}\n" if outcome.error else "",
        outcome.error_fingerprint,
        int(outcome.started is not None),
        outcome.age(),
        is_final,
        outcome.has_time,
        outcome.run_after,
        float(outcome.delay),
        None if is_final else outcome.args,
        None if is_final else outcome.kwargs,
        int(outcome.retried),
        int(outcome.crashed),
        int(outcome.deferred),
    )
