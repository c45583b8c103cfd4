"""Anything, in any order: sets are applied, steered and swept while workers claim, die, and record
what they hold, or held once. After each step every count is right and every callback is where it
belongs; in the end every set ends, and each of its generations has released its callbacks once.
"""

from __future__ import annotations

import uuid
from collections import Counter
from datetime import timedelta
from typing import Any, cast

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_tasksets import TaskSet, TaskSetResult, TaskSetSealed
from django_tasksets.control import revoke_rest
from django_tasksets.enqueueing import seal
from django_tasksets.maintenance import mark_lost, rescue
from django_tasksets.models import SubtaskRecord, TaskSetRecord, WorkerRecord
from django_tasksets.recording import Recorded, record
from django_tasksets.statuses import FINISHED, Role, SubtaskStatus, TaskSetStatus
from django_tasksets.store import get_store
from django_tasksets.store.contract import Claimed, Outcome, Store
from django_tasksets.store.portable import PortableStore
from django_tasksets.sweeping import sweep
from tests import flow, tasks

pytestmark = pytest.mark.django_db

ENDINGS = ("SUCCESSFUL", "FAILED", "REVOKED", "READY", "SCHEDULED")
Tenure = tuple[uuid.UUID, Claimed]
"""A worker, and what it claimed."""


class Machine(RuleBasedStateMachine):
    """What users, workers and time may do."""

    sets = Bundle("sets")
    tenures = Bundle("tenures")
    """Every fence that was ever issued: results may come at any time, and twice."""
    workers = Bundle("workers")

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.accepted = Counter[tuple[uuid.UUID, int]]()

    @initialize(target=workers)
    def first_worker(self) -> uuid.UUID:
        return flow.new_worker(self.store)

    # Users

    @rule(target=sets, count=st.integers(0, 4), is_open=st.booleans(), limit=st.none() | st.just(1))
    def apply(self, count: int, is_open: bool, limit: int | None) -> str:
        taskset = TaskSet(
            [tasks.noop.subtask()] * count,
            on_success=tasks.echo.subtask(),
            on_failure=tasks.describe.subtask(),
            on_finish=tasks.describe.subtask(),
            max_failures=limit,
        )
        return taskset.open().__enter__().id if is_open else taskset.apply_async().id

    @rule(key=sets, count=st.integers(1, 3))
    def add(self, key: str, count: int) -> None:
        before = TaskSetRecord.objects.get(id=key)
        try:
            TaskSetResult(key).add([tasks.noop.subtask()] * count)
        except TaskSetSealed:
            assert before.sealed_at is not None
        else:
            assert before.is_open

    @rule(key=sets)
    def seal(self, key: str) -> None:
        seal(uuid.UUID(key))

    @rule(key=sets)
    def revoke(self, key: str) -> None:
        TaskSetResult(key).revoke()

    @rule(key=sets, position=st.integers(0, 3))
    def revoke_one(self, key: str, position: int) -> None:
        for row in SubtaskRecord.objects.filter(taskset_id=uuid.UUID(key), position=position):
            TaskSetResult(key)[position].revoke()
            row.refresh_from_db()
            assert row.is_finished or row.revoke_flag

    @rule(key=sets)
    def pause(self, key: str) -> None:
        TaskSetResult(key).pause()
        if TaskSetRecord.objects.running().filter(id=key).exists():
            members = SubtaskRecord.objects.members().filter(taskset_id=uuid.UUID(key))
            assert not members.filter(status__in=("READY", "SCHEDULED")).exists()

    @rule(key=sets)
    def resume(self, key: str) -> None:
        TaskSetResult(key).resume()

    @rule(key=sets)
    def retry(self, key: str) -> None:
        members = SubtaskRecord.objects.members().filter(taskset_id=uuid.UUID(key))
        ended_badly = members.filter(status__in=("FAILED", "REVOKED")).count()
        assert TaskSetResult(key).retry_failed() == ended_badly

    @precondition(lambda self: TaskSetRecord.objects.count() < 6)
    @rule(target=sets, key=sets)
    def rerun(self, key: str) -> str:
        return TaskSetResult(key).rerun().id

    # Workers

    @precondition(lambda self: WorkerRecord.objects.filter(lost_at=None).count() < 2)
    @rule(target=workers)
    def start(self) -> uuid.UUID:
        return flow.new_worker(self.store)

    @rule(target=tenures, worker=workers, limit=st.integers(1, 4))
    def claim(self, worker: uuid.UUID, limit: int) -> Any:
        # It may have been declared dead, and not know: what it claims is rescued later.
        rows = self.store.claim(worker, (), limit)
        assert len({row.id for row in rows}) == len(rows) <= limit
        return multiple(*((worker, row) for row in rows))

    @rule(tenure=tenures, status=st.sampled_from(ENDINGS), is_retry=st.booleans())
    def finish(self, tenure: Tenure, status: str, is_retry: bool) -> None:
        worker, claimed = tenure
        self._record(worker, [flow.outcome(claimed, status, retried=is_retry)])

    @rule(tenures=st.lists(tenures, min_size=2, max_size=5), status=st.sampled_from(ENDINGS))
    def finish_batch(self, tenures: list[Tenure], status: str) -> None:
        """Of one worker, as it must be; the first is a success, as most are."""
        worker = tenures[0][0]
        mine = {claimed.id: claimed for owner, claimed in tenures if owner == worker}
        outcomes = [flow.outcome(claimed, status) for claimed in mine.values()]
        self._record(worker, [flow.outcome(outcomes[0].claimed), *outcomes[1:]])

    @rule(tenure=tenures)
    def give_back_and_claim(self, tenure: Tenure) -> None:
        """What was held is claimed anew by the same worker, which may still answer for before."""
        worker, claimed = tenure
        self._record(worker, [flow.outcome(claimed, "READY", started=None)])
        self.store.claim_ids(worker, [claimed.id])

    def _record(self, worker: uuid.UUID, outcomes: list[Outcome]) -> Recorded:
        by_id = SubtaskRecord.objects.in_bulk([outcome.claimed.id for outcome in outcomes])
        recorded = record(self.store, worker, outcomes)
        assert recorded.parked == []
        written = {outcome.claimed.id for outcome in recorded.written}
        for outcome in outcomes:
            claimed, before = outcome.claimed, by_id[outcome.claimed.id]
            is_mine = (before.worker_id, before.claims) == (worker, claimed.claims)
            is_held = is_mine and before.status == SubtaskStatus.RUNNING
            # What it has written already is acknowledged once more, and counts for nothing.
            is_called_off = before.status == SubtaskStatus.REVOKED and not outcome.is_final
            is_known = is_mine and (
                is_called_off or (before.is_finished and before.status == outcome.status)
            )
            assert (claimed.id in written) == (is_held or is_known)
            self.accepted[claimed.id, claimed.claims] += is_held
            assert self.accepted[claimed.id, claimed.claims] <= 1
        for key in recorded.settled.over_limit:
            revoke_rest(self.store, key)
        return recorded

    @rule(worker=consumes(workers))
    def die(self, worker: uuid.UUID) -> None:
        held = SubtaskRecord.objects.filter(worker_id=worker, status=SubtaskStatus.RUNNING)
        ids = set(held.values_list("id", flat=True))
        mark_lost(self.store, [worker])
        rescue(self.store, crashed=list(ids)[:1], cause="was killed")
        left = SubtaskRecord.objects.filter(id__in=ids, status=SubtaskStatus.RUNNING)
        assert not left.exists()

    # Time

    @rule()
    def pass_time(self) -> None:
        SubtaskRecord.objects.filter(status=SubtaskStatus.SCHEDULED).update(
            run_after=timezone.now() - timedelta(seconds=1)
        )
        self.store.promote(100)

    @rule()
    def sweep(self) -> None:
        assert sweep(self.store) == 0

    # What holds

    @invariant()
    def counts_add_up(self) -> None:
        flow.assert_counts_add_up()
        for row in TaskSetRecord.objects.all():
            is_over = row.remaining == 0 and row.sealed_at is not None
            assert row.is_finished == is_over
            assert (row.finished_at is not None) == row.is_finished

    @invariant()
    def callbacks_are_where_they_belong(self) -> None:
        for row in TaskSetRecord.objects.all():
            for generation in range(1, row.generation + 1):
                is_over = generation < row.generation or row.is_finished
                self._check_callbacks(flow.callbacks_of(row, generation), is_over=is_over)

    def _check_callbacks(self, status: dict[str, str], *, is_over: bool) -> None:
        assert len(status) == 3
        first = [status[Role.ON_SUCCESS], status[Role.ON_FAILURE]]
        if not is_over:
            # By itself a callback may be revoked, never released.
            assert set(status.values()) <= {SubtaskStatus.WAITING, SubtaskStatus.REVOKED}
            return
        assert SubtaskStatus.REVOKED in first
        assert SubtaskStatus.WAITING not in first
        if set(first) <= FINISHED:
            assert status[Role.ON_FINISH] != SubtaskStatus.WAITING
        else:
            assert status[Role.ON_FINISH] == SubtaskStatus.WAITING

    def teardown(self) -> None:
        """Let everything come to its end."""
        try:
            self._come_to_the_end()
        finally:
            for model in (SubtaskRecord, TaskSetRecord, WorkerRecord):
                model.objects.all().delete()

    def _come_to_the_end(self) -> None:
        mark_lost(self.store, list(WorkerRecord.objects.values_list("id", flat=True)))
        rescue(self.store)
        for row in TaskSetRecord.objects.all():
            TaskSetResult(row.id).resume()
            seal(row.id)
        self.pass_time()
        worker = flow.new_worker(self.store)
        while rows := self.store.claim(worker, (), 100):
            self._record(worker, [flow.outcome(row) for row in rows])
        self.counts_add_up()
        self.callbacks_are_where_they_belong()
        assert not TaskSetRecord.objects.filter(status=TaskSetStatus.RUNNING).exists()
        assert not SubtaskRecord.objects.unfinished().exists()
        assert sweep(self.store) == 0


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["portable", "native"])
def test_whatever_happens(kind: str) -> None:
    native = get_store()
    if kind == "native" and type(native) is PortableStore:
        pytest.skip(f"{connection.vendor} has no store of its own")
    store = native if kind == "native" else PortableStore(native.alias)
    run_state_machine_as_test(
        cast(Any, lambda: Machine(store)),
        settings=settings(
            max_examples=30,
            stateful_step_count=30,
            # What it has found is short enough; to make it shorter takes minutes.
            phases=set(Phase) - {Phase.shrink},
            suppress_health_check=list(HealthCheck),
        ),
    )
