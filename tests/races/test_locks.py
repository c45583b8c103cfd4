"""Somebody else holds what is to be written: for a moment, for long, or in the wrong order."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_tasksets import AlreadyApplied, TaskSet
from django_tasksets.consequences import Consequences
from django_tasksets.control import revoke_subtasks
from django_tasksets.enqueueing import enqueue, save_set
from django_tasksets.ids import new_id
from django_tasksets.maintenance import sweep
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.recording import record
from django_tasksets.statuses import Role
from django_tasksets.steering import pause_set, retry_failed_set
from django_tasksets.store import get_store, onewriter
from django_tasksets.store.contract import Claimed
from django_tasksets.store.sqlite import SQLiteStore
from tests import flow
from tests.concurrency import Background, together

pytestmark = pytest.mark.django_db(transaction=True)

has_row_locks = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="this database has one writer at a time"
)
on_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite's one lock")
NOOP: Any = {"task": "tests.tasks.noop", "args": [], "kwargs": {}, "options": {}}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.005)


def dedicated(function: Callable[[], Any]) -> Any:
    """Call it as a worker's recorder would, which waits for locks only so long."""

    def call() -> Any:
        get_store().dedicate()
        return function()

    return Background(call).join()


def hold(rows: Any, *ids: uuid.UUID) -> None:
    """Lock rows in the other connection's transaction."""
    mine = rows.using("other").order_by("id").filter(id__in=ids)
    assert len(mine.select_for_update()) == len(ids)


@has_row_locks
class TestHeldRows:
    def test_a_held_set_is_parked_and_the_others_are_recorded(
        self, other_connection: BaseDatabaseWrapper
    ) -> None:
        store = get_store()
        worker = flow.new_worker(store)
        made = flow.make_sets(store, 40, 2, callbacks=[Role.ON_SUCCESS])
        done = [flow.outcome(one) for one in flow.claim_members(store, worker, *made)]
        held = made[17]
        with transaction.atomic(using="other"):
            hold(TaskSetRecord.objects, held.id)
            began = time.monotonic()
            first = dedicated(lambda: record(store, worker, done))
            assert time.monotonic() - began < 5
            assert {o.claimed.taskset_id for o in first.parked} == {held.id}
            assert (len(first.written), len(first.parked)) == (78, 2)
            assert flow.counts_of(held) == (2, 2, 0, 0, 0)
            assert len(first.settled.finished) == len(first.settled.released) == 39
            # What is parked is asked for, not waited for, when it is tried again.
            (more,) = flow.make_sets(store, 1, 2)
            others = [flow.outcome(one) for one in flow.claim_members(store, worker, more)]
            began = time.monotonic()
            second = dedicated(lambda: record(store, worker, [*first.parked, *others]))
            assert time.monotonic() - began < 0.9
            assert second.parked == first.parked
            assert {o.claimed.id for o in second.written} == {o.claimed.id for o in others}
        third = dedicated(lambda: record(store, worker, second.parked))
        assert (len(third.written), len(third.parked)) == (2, 0)
        assert flow.callbacks_of(held) == {"ON_SUCCESS": "READY"}
        flow.assert_counts_add_up()

    def test_so_is_a_held_subtask(self, other_connection: BaseDatabaseWrapper) -> None:
        store = get_store()
        worker = flow.new_worker(store)
        claimed = store.claim_ids(worker, flow.enqueue(store, 5))
        (taskset,) = flow.make_sets(store, 1, 5)
        members = flow.claim_members(store, worker, taskset)
        done = [flow.outcome(one) for one in (*claimed, *members)]
        with transaction.atomic(using="other"):
            hold(SubtaskRecord.objects, claimed[2].id, members[0].id)
            recorded = dedicated(lambda: record(store, worker, done))
            parked = {o.claimed.id for o in recorded.parked}
            assert parked == {claimed[2].id, members[0].id}
            assert flow.counts_of(taskset) == (5, 1, 4, 0, 0)

    def test_all_is_parked_if_all_is_held(self, other_connection: BaseDatabaseWrapper) -> None:
        store = get_store()
        worker = flow.new_worker(store)
        taskset = flow.make_set(store, 3)
        done = [flow.outcome(one) for one in flow.claim_members(store, worker, taskset)]
        with transaction.atomic(using="other"):
            hold(TaskSetRecord.objects, taskset.id)
            recorded = dedicated(lambda: record(store, worker, done))
        assert (recorded.parked, recorded.written, recorded.late) == (done, [], [])

    def test_a_revocation_passes_over_what_is_held_and_says_so(
        self, other_connection: BaseDatabaseWrapper, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = get_store()
        ids = flow.enqueue(store, 3)
        with transaction.atomic(using="other"):
            hold(SubtaskRecord.objects, ids[1])
            assert revoke_subtasks(ids) == 2
        assert "subtasks not revoked" in caplog.text
        assert flow.statuses_of(ids) == ["REVOKED", "READY", "REVOKED"]

    def test_a_revocation_reaches_what_is_let_go_soon(
        self, other_connection: BaseDatabaseWrapper
    ) -> None:
        store = get_store()
        ids = flow.enqueue(store, 3)
        with transaction.atomic(using="other"):
            hold(SubtaskRecord.objects, ids[1])
            revoking = Background(lambda: revoke_subtasks(ids))
            wait_for(lambda: flow.statuses_of(ids) == ["REVOKED", "READY", "REVOKED"])
        assert revoking.join() == 3

    @pytest.mark.parametrize(
        ("steer", "status", "then"),
        [(pause_set, "READY", "WAITING"), (retry_failed_set, "FAILED", "READY")],
    )
    def test_steering_passes_over_what_is_held(
        self,
        other_connection: BaseDatabaseWrapper,
        steer: Callable[[uuid.UUID], Any],
        status: str,
        then: str,
    ) -> None:
        """It holds the set's row, for which whoever holds the subtask may be waiting."""
        store = get_store()
        failed = 3 * (status == "FAILED")
        taskset = flow.make_set(
            store, 3, member={"status": status}, failed=failed, remaining=3 - failed
        )
        rows = SubtaskRecord.objects.order_by("position")
        held = rows.values_list("id", flat=True)[1]
        with transaction.atomic(using="other"):
            hold(SubtaskRecord.objects, held)
            dedicated(lambda: steer(taskset.id))
            assert list(rows.values_list("status", flat=True)) == [then, status, then]

    @pytest.mark.parametrize("connected", [dedicated, lambda call: Background(call).join()])
    def test_a_sweep_leaves_out_what_is_held(
        self, other_connection: BaseDatabaseWrapper, connected: Callable[[Any], Any]
    ) -> None:
        """Not on connections alone that wait for locks only so long."""
        store = get_store()
        held, other = flow.make_sets(store, 2, 1)
        SubtaskRecord.objects.update(status="SUCCESSFUL")
        with transaction.atomic(using="other"):
            hold(TaskSetRecord.objects, held.id)
            assert connected(lambda: sweep(store)) == 1
            assert flow.counts_of(held) == (1, 1, 0, 0, 0)
            assert flow.counts_of(other) == (1, 0, 1, 0, 0)
        assert sweep(store) == 1

    def test_a_sweep_revokes_what_has_expired_past_what_is_held(
        self, other_connection: BaseDatabaseWrapper
    ) -> None:
        store = get_store()
        held, other = flow.make_sets(store, 2, 1)
        SubtaskRecord.objects.update(expires_at=store.now())
        with transaction.atomic(using="other"):
            hold(TaskSetRecord.objects, held.id)
            assert Background(lambda: sweep(store)).join() == 0
            assert flow.counts_of(held) == (1, 1, 0, 0, 0)
            assert flow.counts_of(other) == (1, 0, 0, 0, 1)
        assert sweep(store) == 0
        assert flow.counts_of(held) == (1, 0, 0, 0, 1)

    def test_a_deadlock_is_resolved_by_another_try(
        self, other_connection: BaseDatabaseWrapper, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Somebody locks two sets in the wrong order, and it is the recording that is ended."""
        store = get_store()
        worker = flow.new_worker(store)
        made = sorted(flow.make_sets(store, 2, 1, callbacks=[Role.ON_SUCCESS]), key=lambda s: s.id)
        done = [flow.outcome(one) for one in flow.claim_members(store, worker, *made)]
        with other_connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                # Who looks first is ended.
                cursor.execute("SET deadlock_timeout = '30s'")
        with transaction.atomic(using="other"):
            if connection.vendor == "mysql":
                # Who has written less is ended.
                SubtaskRecord.objects.using("other").bulk_create(
                    SubtaskRecord(task_name="x") for _ in range(50)
                )
            hold(TaskSetRecord.objects, made[1].id)
            counted = []
            tallies = Consequences.tallies

            def counting(consequences: Consequences) -> Any:
                counted.append(consequences)
                return tallies(consequences)

            monkeypatch.setattr(Consequences, "tallies", counting)
            recording = Background(lambda: record(store, worker, done))
            wait_for(lambda: self.is_held(made[0].id))
            hold(TaskSetRecord.objects, made[0].id)
        assert len(recording.join().written) == 2
        assert len(counted) > 1
        assert {flow.counts_of(one) for one in made} == {(1, 0, 1, 0, 0)}
        assert [flow.callbacks_of(one) for one in made] == [{"ON_SUCCESS": "READY"}] * 2

    def test_of_two_that_apply_a_saved_set_one_does(
        self, other_connection: BaseDatabaseWrapper
    ) -> None:
        """Nothing but its row tells the second one so: there is no id that is taken."""
        key = new_id()
        save_set(key, [])
        with transaction.atomic():
            TaskSet([]).apply_async(taskset_id=str(key))
            second = Background(lambda: TaskSet([]).apply_async(taskset_id=str(key)))
            # Inside of one transaction PostgreSQL shows the same activity for ever.
            wait_for(lambda: Background(is_waited_for).join())
        with pytest.raises(AlreadyApplied):
            second.join()

    @pytest.mark.parametrize("kind", ["members", "sets"])
    @pytest.mark.parametrize("status", ["SUCCESSFUL", "FAILED"])
    def test_rows_are_locked_in_the_order_of_their_ids(
        self, other_connection: BaseDatabaseWrapper, kind: str, status: str
    ) -> None:
        """Not in that in which they lie in the table, and are found there: while the first one is
        waited for, all that come after it are free. Sets come after members."""
        store = get_store()
        worker = flow.new_worker(store)
        sets = [TaskSetRecord(id=new_id(), total=1, remaining=1) for _ in range(12)]
        members = [
            SubtaskRecord(
                id=new_id(), taskset=one, role=Role.MEMBER, position=0, status="RUNNING",
                task_name="tests.tasks.noop", worker_id=worker, claims=1,
            )
            for one in sets
        ]  # fmt: skip
        TaskSetRecord.objects.bulk_create(reversed(sets))
        SubtaskRecord.objects.bulk_create(reversed(members))
        held = SubtaskRecord.objects.order_by("?").values_list(*Claimed._fields)
        done = [flow.outcome(Claimed._make(row), status) for row in held]

        def recording() -> int:
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute("SET enable_indexscan = off; SET enable_indexonlyscan = off")
            return len(record(store, worker, done).written)

        first, *later = members if kind == "members" else sets
        with transaction.atomic(using="other"):
            hold(type(first).objects, first.id)
            background = Background(recording)
            wait_for(is_waited_for)
            with transaction.atomic():
                rows = type(first).objects.order_by("id").select_for_update(skip_locked=True)
                assert len(rows.filter(id__in=[one.id for one in later])) == len(later)
                if kind == "members":
                    free = TaskSetRecord.objects.order_by("id").select_for_update(skip_locked=True)
                    assert len(free) == len(sets)
        assert background.join() == len(done)

    def is_held(self, key: uuid.UUID) -> bool:
        with transaction.atomic():
            sets = TaskSetRecord.objects.order_by().select_for_update(skip_locked=True)
            return not len(sets.filter(id=key))


def is_waited_for() -> bool:
    """Whether somebody waits for a lock in this database."""
    statement = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    if connection.vendor == "mysql":
        # What it shows is renewed only if nobody has looked for a tenth of a second.
        time.sleep(0.2)
        statement = """
            SELECT count(*) FROM information_schema.innodb_trx trx
            JOIN information_schema.processlist thread ON thread.id = trx.trx_mysql_thread_id
            WHERE trx_state = 'LOCK WAIT' AND thread.db = database()"""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return bool(cursor.fetchone()[0])


@on_sqlite
class TestOneWriter:
    def test_a_transaction_of_ours_waits_for_the_lock_before_it_reads(self) -> None:
        """In a project that has not set IMMEDIATE: one that has read first could not wait."""
        store = get_store()
        taskset = flow.make_set(store, 30)
        worker = flow.new_worker(store)
        held = flow.claim_members(store, worker, taskset)

        def end_some(part: list[Claimed]) -> None:
            deferred()
            for one in part:
                flow.record_all(store, worker, [one])

        def enqueue_some() -> None:
            deferred()
            for _ in range(10):
                with transaction.atomic():
                    enqueue(NOOP)
                    enqueue(NOOP)

        together(
            lambda: end_some(held[::2]), lambda: end_some(held[1::2]), enqueue_some, enqueue_some
        )
        assert flow.counts_of(taskset) == (30, 0, 30, 0, 0)
        assert SubtaskRecord.objects.filter(taskset=None).count() == 40

    def test_it_has_it_before_anything_else_happens(self) -> None:
        def is_locked() -> bool:
            other = sqlite3.connect(connection.settings_dict["NAME"], timeout=0)
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            finally:
                other.close()
            return False

        def begin() -> bool:
            deferred()
            return get_store().run(is_locked)

        assert Background(begin).join()
        assert not is_locked()

    def test_it_waits_for_its_turn_and_what_is_in_it_does_not(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(onewriter, "PATIENCE", 0.2)
        store = get_store()
        assert isinstance(store, SQLiteStore)
        with store._one_writer.turn():
            assert took(lambda: Background(lambda: store.run(list)).join()) >= 0.2
            assert took(lambda: Background(lambda: enqueue(NOOP)).join()) >= 0.2

            def nested() -> float:
                with transaction.atomic():
                    return took(lambda: store.run(list)) + took(lambda: enqueue(NOOP))

            assert Background(nested).join() < 0.2

    def test_receivers_of_signals_are_called_after_it(self) -> None:
        """They may take long, and may use the package themselves."""
        store = get_store()
        waited: list[float] = []

        def receive() -> None:
            waited.append(took(lambda: store.run(list)))
            waited.append(took(lambda: Background(lambda: store.run(list)).join()))

        store.run(lambda: transaction.on_commit(receive))
        assert len(waited) == 2
        assert max(waited) < onewriter.PATIENCE / 2

    def test_whoever_waits_too_long_is_told(self, other_connection: BaseDatabaseWrapper) -> None:
        def impatient() -> None:
            options = connection.settings_dict["OPTIONS"]
            alone = connections["default"].copy()
            alone.settings_dict = alone.settings_dict | {"OPTIONS": options | {"timeout": 0.1}}
            connections["default"] = alone
            with pytest.raises(OperationalError, match="locked"):
                enqueue(NOOP)

        with transaction.atomic(using="other"):
            SubtaskRecord.objects.using("other").create(task_name="x")
            Background(impatient).join()
        assert SubtaskRecord.objects.count() == 1


def took(work: Callable[[], object]) -> float:
    """For how long, in seconds."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def deferred() -> None:
    """Give this thread a connection whose transactions begin as SQLite's do by default."""
    plain = connections["default"].copy()
    options = plain.settings_dict["OPTIONS"] | {"transaction_mode": None}
    plain.settings_dict = plain.settings_dict | {"OPTIONS": options}
    connections["default"] = plain
