"""What the contract promises, asked of every store that fits the database of this run."""

from __future__ import annotations

import datetime
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import (
    DatabaseError,
    IntegrityError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_tasksets.consequences import consequences
from django_tasksets.ids import new_id
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.statuses import Role, SubtaskStatus, TaskSetStatus
from django_tasksets.store import get_store
from django_tasksets.store.contract import (
    Claimed,
    Held,
    NewSubtask,
    Outcome,
    SetState,
    SomeDiffer,
    Store,
    Tally,
    batches,
)
from django_tasksets.store.portable import MAX_ERRORS, PortableStore
from tests import flow

pytestmark = pytest.mark.django_db

WORKER = new_id()
examples = settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Any text that a database can hold: what JSON can spell, control characters and all.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@pytest.fixture(params=["portable", "native"])
def store(request: pytest.FixtureRequest) -> PortableStore:
    """Each implementation that fits."""
    native = get_store()
    assert isinstance(native, PortableStore)
    if request.param == "native":
        if type(native) is PortableStore:
            pytest.skip(f"{connection.vendor} has no store of its own")
        return native
    return PortableStore(native.alias)


def claim_one(store: PortableStore, **columns: Any) -> Claimed:
    """A claimed subtask of no set."""
    (key,) = flow.enqueue(store, **columns)
    (claimed,) = store.claim_ids(WORKER, [key])
    return claimed


def write(store: PortableStore, *outcomes: Outcome) -> list[uuid.UUID]:
    """Finish outcomes of WORKER; the ids of those that were written."""
    return [o.claimed.id for o in store.run(lambda: store.finish(WORKER, outcomes))]


def in_memory() -> bool:
    return not connection.features.has_select_for_update


class TestInsert:
    def test_every_column_is_what_was_given(self, store: PortableStore) -> None:
        taskset = flow.make_set(store, 0)
        moment = datetime.datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=datetime.UTC)
        row = flow.new_row(
            taskset_id=taskset.id.hex,
            role=Role.MEMBER,
            position=7,
            generation=2,
            weight=3,
            args='["é\\u00e9"]',
            kwargs='{"a":1}',
            options='{"max_retries":1}',
            links="{}",
            queue_name="mail",
            priority=-5,
            claim_order=2**53,
            run_after=moment,
            expires_at=moment,
            status=SubtaskStatus.SCHEDULED,
            enqueued_at=moment,
        )
        store.run(lambda: store.insert([row]))
        found = SubtaskRecord.objects.values(*NewSubtask._fields).get()
        assert found == row._asdict() | {"id": uuid.UUID(row.id), "taskset_id": taskset.id}

    def test_what_is_left_out_has_its_default(self, store: PortableStore) -> None:
        (key,) = flow.enqueue(store)
        row = flow.fetch(key)
        assert (row.reason, row.revoke_flag, row.claims, row.attempts) == ("", 0, 0, 0)
        assert (row.retries, row.crashes, row.errors, row.error_fingerprint) == (0, 0, "", "")
        assert (row.worker_id, row.return_value, row.started_at) == (None, None, None)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            r"\N",
            r"\.",
            "\\",
            "a\tb",
            "a\nb",
            "a\r\nb",
            "\r",
            "\x0b\x1f\x7f",
            "é漢🎈",
            "\u2028",
            "'\"`;--",
        ],
    )
    def test_hostile_text_comes_back(self, store: PortableStore, text: str) -> None:
        (key,) = flow.enqueue(store, args=text, task_name=text[:20], queue_name="q")
        row = flow.fetch(key)
        assert (row.args, row.task_name, row.kwargs) == (text, text[:20], "{}")

    @examples
    @given(texts, texts, st.lists(texts, max_size=3))
    def test_any_text_comes_back(
        self, store: PortableStore, args: str, kwargs: str, others: list[str]
    ) -> None:
        rows = [flow.new_row(args=args, kwargs=kwargs)]
        rows += [flow.new_row(links=text) for text in others]
        store.run(lambda: store.insert(rows))
        found = dict(SubtaskRecord.objects.values_list("id", "links"))
        assert [found[flow.key_of(row)] for row in rows] == ["", *others]
        first = flow.fetch(flow.key_of(rows[0]))
        assert (first.args, first.kwargs) == (args, kwargs)

    def test_many_rows_go_in_few_statements(self, store: PortableStore) -> None:
        taskset = flow.make_set(store, 0)
        rows = flow.member_rows(taskset.id, 2_345)
        with CaptureQueriesContext(connection) as queries:
            store.run(lambda: store.insert(iter(rows)))
        positions = SubtaskRecord.objects.order_by("position").values_list("position", flat=True)
        assert list(positions) == list(range(2_345))
        # SQLite takes so many parameters at a time; a multi-row INSERT is one of many.
        assert len(queries) < 100

    @pytest.mark.parametrize("clash", ["id", "position"])
    def test_what_is_taken_is_refused_and_nothing_is_written(
        self, store: PortableStore, clash: str
    ) -> None:
        taskset = flow.make_set(store, 1)
        (there,) = SubtaskRecord.objects.all()
        rows = flow.member_rows(taskset.id, 5)[1:]
        changed = {"id": there.id.hex} if clash == "id" else {"position": 0}
        rows[2] = rows[2]._replace(**changed)
        with transaction.atomic():
            (mine,) = flow.enqueue(store)
            with pytest.raises(IntegrityError):
                store.run(lambda: store.insert(rows))
            # The caller's transaction goes on, and keeps what it had.
            assert flow.fetch(mine).id == mine
        assert set(SubtaskRecord.objects.values_list("id", flat=True)) == {there.id, mine}

    def test_an_error_half_way_leaves_nothing(self, store: PortableStore) -> None:
        def rows() -> Iterator[NewSubtask]:
            yield from (flow.new_row() for _ in range(1_500))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.run(lambda: store.insert(rows()))
        assert not SubtaskRecord.objects.exists()

    def test_it_goes_back_with_the_callers_transaction(self, store: PortableStore) -> None:
        with transaction.atomic():
            flow.enqueue(store, 3)
            transaction.set_rollback(True)
        assert not SubtaskRecord.objects.exists()

    def test_nothing_is_fine(self, store: PortableStore) -> None:
        store.run(lambda: store.insert([]))


class TestClaim:
    def test_a_claim_is_written_down(self, store: PortableStore) -> None:
        moment = timezone.now().replace(microsecond=123_000) + datetime.timedelta(days=1)
        (key,) = flow.enqueue(store, args="[1]", links="{}", priority=4, expires_at=moment)
        (claimed,) = store.claim(WORKER, [], 10)
        row = flow.fetch(key)
        assert (row.status, row.worker_id, row.claims) == ("RUNNING", WORKER, 1)
        assert row.claimed_at is not None
        assert SubtaskRecord.objects.values_list(*Claimed._fields).get() == claimed
        assert isinstance(claimed.id, uuid.UUID)
        assert claimed.expires_at == moment

    def test_order_is_by_priority_and_then_by_claim_order(self, store: PortableStore) -> None:
        wanted = []
        for priority, order in ((5, 20), (5, 30), (0, 10), (0, 40), (-1, 1)):
            wanted += flow.enqueue(store, priority=priority, claim_order=order)
        assert [row.id for row in store.claim(WORKER, [], 3)] == wanted[:3]
        assert [row.id for row in store.claim(WORKER, ["default"], 3)] == wanted[3:]
        assert store.claim(WORKER, [], 3) == []

    @examples
    @given(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.integers(-1, 1), st.integers(0, 2**40)),
            unique_by=lambda row: row[2],
            max_size=12,
        ),
        st.lists(st.sampled_from("abcx"), max_size=4),
        st.integers(1, 8),
    )
    def test_claims_are_what_a_sorted_list_would_give(
        self, store: PortableStore, rows: list[tuple[str, int, int]], queues: list[str], limit: int
    ) -> None:
        SubtaskRecord.objects.all().delete()
        store.insert(
            flow.new_row(queue_name=queue, priority=priority, claim_order=order)
            for queue, priority, order in rows
        )
        left = sorted(
            (row for row in rows if not queues or row[0] in queues),
            key=lambda row: (-row[1], row[2]),
        )
        while left:
            claimed = store.claim(WORKER, queues, limit)
            assert [(c.queue_name, c.priority, c.claim_order) for c in claimed] == left[:limit]
            del left[:limit]
        assert store.claim(WORKER, queues, limit) == []
        others = [row for row in rows if queues and row[0] not in queues]
        assert SubtaskRecord.objects.ready().count() == len(others)

    def test_to_go_on_is_to_claim_what_comes_behind_the_last(self, store: PortableStore) -> None:
        ids = [flow.enqueue(store, claim_order=order)[0] for order in (10, 20, 20, 30, 40)]
        *_, last = store.claim(WORKER, [], 2)
        flow.enqueue(store, claim_order=5)
        flow.enqueue(store, claim_order=25, queue_name="other")
        flow.enqueue(store, claim_order=25, priority=1)
        flow.enqueue(store, claim_order=25, priority=-1)
        SubtaskRecord.objects.filter(id=ids[3]).update(status="REVOKED")
        claimed = store.claim_on(WORKER, last, 1) + store.claim_on(WORKER, last, 9)
        goes_on = type(store).claim_on is not Store.claim_on
        # Of two with the same order either may have come first.
        (beside,) = {*ids[1:3]} - {last.id}
        assert [row.id for row in claimed] == ([beside, ids[4]] if goes_on else [])
        assert all(flow.fetch(row.id).worker_id == WORKER for row in claimed)
        assert goes_on or connection.vendor != "postgresql" or type(store) is PortableStore

    def test_only_what_is_ready_is_claimed(self, store: PortableStore) -> None:
        ids = [flow.enqueue(store, status=status)[0] for status in SubtaskStatus]
        assert [row.id for row in store.claim(WORKER, [], 100)] == [ids[1]]
        assert store.claim_ids(WORKER, ids) == []
        expected: list[str] = list(SubtaskStatus)
        expected[1] = "RUNNING"
        assert flow.statuses_of(ids) == expected

    def test_ids_are_claimed_whatever_their_queue(self, store: PortableStore) -> None:
        ids = [flow.enqueue(store, queue_name=name)[0] for name in ("a", "b", "c")]
        claimed = store.claim_ids(WORKER, [ids[2], ids[0], new_id()])
        assert {row.id for row in claimed} == {ids[0], ids[2]}
        assert {row.claims for row in claimed} == {1}
        assert flow.statuses_of(ids) == ["RUNNING", "READY", "RUNNING"]

    def test_nobody_claims_twice(self, store: PortableStore) -> None:
        flow.enqueue(store, 50)
        claimed: list[uuid.UUID] = []
        while rows := store.claim(new_id(), [], 7):
            claimed += [row.id for row in rows]
        assert len(claimed) == len(set(claimed)) == 50

    @pytest.mark.parametrize("by_id", [True, False])
    def test_each_claim_has_a_fence_of_its_own(self, store: PortableStore, by_id: bool) -> None:
        (key,) = flow.enqueue(store)
        for claims in (1, 2, 3):
            (claimed,) = store.claim_ids(WORKER, [key]) if by_id else store.claim(WORKER, [], 1)
            assert claimed.claims == flow.fetch(key).claims == claims
            assert write(store, Outcome(claimed, SubtaskStatus.READY)) == [key]

    def test_an_idle_claim_takes_few_statements(self, store: PortableStore) -> None:
        flow.enqueue(store, 3, queue_name="other")
        for queues in ([], ["default"], ["default", "mail"]):
            SubtaskRecord.objects.filter(queue_name="other").update(
                status="READY" if queues else "WAITING"
            )
            with CaptureQueriesContext(connection) as queries:
                assert store.claim(WORKER, queues, 10) == []
            assert len([q for q in queries if "SAVEPOINT" not in q["sql"]]) <= max(1, len(queues))

    @pytest.mark.django_db(transaction=True)
    def test_locked_rows_are_passed_over(
        self, store: PortableStore, other_connection: BaseDatabaseWrapper
    ) -> None:
        if not connection.features.has_select_for_update_skip_locked:
            pytest.skip("this database has one writer at a time")
        ids = [flow.enqueue(store, claim_order=order)[0] for order in range(4)]
        with transaction.atomic(using="other"):
            others = SubtaskRecord.objects.using("other").order_by().select_for_update()
            assert len(others.filter(id__in=ids[:2])) == 2
            assert store.claim_ids(WORKER, [ids[0]]) == []
            assert [row.id for row in store.claim(WORKER, [], 1)] == [ids[2]]
            assert [row.id for row in store.claim(WORKER, ["default"], 9)] == [ids[3]]
        assert [row.id for row in store.claim(WORKER, [], 9)] == ids[:2]


class TestFinish:
    def test_success(self, store: PortableStore) -> None:
        claimed = claim_one(store)
        done = flow.outcome(claimed, return_value='{"é":1}', started=time.monotonic() - 60)
        assert write(store, done) == [claimed.id]
        row = flow.fetch(claimed.id)
        assert (row.status, row.return_value, row.attempts) == ("SUCCESSFUL", '{"é":1}', 1)
        assert (row.worker_id, row.claims, row.reason, row.errors) == (WORKER, 1, "", "")
        assert row.started_at is not None
        assert row.finished_at is not None
        took = row.finished_at - row.started_at
        assert datetime.timedelta(seconds=59) < took < datetime.timedelta(seconds=61)

    def test_failure(self, store: PortableStore) -> None:
        claimed = claim_one(store)
        error = {"error": '{"a":"\\n"}', "error_fingerprint": "abc", "crashed": True}
        write(store, flow.outcome(claimed, "FAILED", reason="why\tnot", **error))
        row = flow.fetch(claimed.id)
        assert (row.status, row.reason, row.errors) == ("FAILED", "why\tnot", '{"a":"\\n"}\n')
        assert (row.error_fingerprint, row.attempts, row.crashes) == ("abc", 1, 1)
        assert (row.return_value, row.worker_id) == (None, WORKER)
        assert row.finished_at is not None

    def test_revoked_before_it_began(self, store: PortableStore) -> None:
        claimed = claim_one(store)
        write(store, Outcome(claimed, SubtaskStatus.REVOKED, reason="expired"))
        row = flow.fetch(claimed.id)
        assert (row.status, row.reason, row.attempts) == ("REVOKED", "expired", 0)
        assert row.started_at is None
        assert row.finished_at is not None

    def test_given_back(self, store: PortableStore) -> None:
        claimed = claim_one(store)
        write(store, Outcome(claimed, SubtaskStatus.READY, crashed=True))
        row = flow.fetch(claimed.id)
        assert (row.status, row.worker_id, row.claimed_at) == ("READY", None, None)
        assert (row.claims, row.attempts, row.retries, row.crashes) == (1, 0, 0, 1)
        assert (row.started_at, row.finished_at, row.run_after) == (None, None, None)

    def test_retried_later(self, store: PortableStore) -> None:
        claimed = claim_one(store, args="[1]")
        retry = {"retried": True, "delay": 60, "error": "first", "error_fingerprint": "x"}
        write(store, flow.outcome(claimed, "SCHEDULED", **retry, args="[2]", kwargs='{"b":2}'))
        row = flow.fetch(claimed.id)
        assert (row.status, row.args, row.kwargs) == ("SCHEDULED", "[2]", '{"b":2}')
        assert (row.attempts, row.retries, row.errors) == (1, 1, "first\n")
        assert row.run_after is not None
        assert 55 < (row.run_after - store.now()).total_seconds() <= 60

    def test_retried_at_a_time(self, store: PortableStore) -> None:
        claimed = claim_one(store)
        moment = datetime.datetime(2040, 5, 6, 7, 8, 9, 10, tzinfo=datetime.UTC)
        write(store, flow.outcome(claimed, "SCHEDULED", run_after=moment))
        assert flow.fetch(claimed.id).run_after == moment

    def test_what_happened_before_is_kept(self, store: PortableStore) -> None:
        claimed = claim_one(store)
        first = {"error": "one", "error_fingerprint": "1", "started": time.monotonic() - 100}
        write(store, flow.outcome(claimed, "READY", retried=True, reason="again", **first))
        began = flow.fetch(claimed.id).started_at
        (claimed,) = store.claim_ids(WORKER, [claimed.id])
        assert (claimed.attempts, claimed.retries) == (1, 1)
        write(store, flow.outcome(claimed))
        row = flow.fetch(claimed.id)
        assert (row.started_at, row.errors, row.error_fingerprint) == (began, "one\n", "1")
        assert (row.attempts, row.retries, row.reason) == (2, 1, "")

    @pytest.mark.parametrize("status", ["SUCCESSFUL", "FAILED", "REVOKED", "READY", "SCHEDULED"])
    def test_only_the_newest_fence_may_write(self, store: PortableStore, status: str) -> None:
        """Give it back again and again, and try every fence that was ever issued."""
        claimed = claim_one(store)
        issued = [(WORKER, claimed)]
        for _ in range(3):
            worker, newest = issued[-1]
            back = Outcome(newest, SubtaskStatus.READY)
            assert store.run(lambda w=worker, o=back: store.finish(w, [o])) == [back]  # type: ignore[misc]
            worker = new_id() if worker == WORKER else WORKER
            (again,) = store.claim_ids(worker, [claimed.id])
            issued.append((worker, again))
        before = flow.fetch(claimed.id)
        holder, newest = issued[-1]
        # Each half of the newest by itself, too.
        late = [(WORKER, newest), (new_id(), newest)]
        for worker, stale in issued[:-1]:
            late += [(other, stale) for other in {worker, WORKER, holder, new_id()}]
        for other, claimed in late:
            outcome = flow.outcome(claimed, status)
            assert store.run(lambda w=other, o=outcome: store.finish(w, [o])) == []  # type: ignore[misc]
        assert flow.fetch(claimed.id).__dict__.items() >= {
            (name, value) for name, value in before.__dict__.items() if name != "_state"
        }
        last = flow.outcome(newest, status)
        assert store.run(lambda: store.finish(holder, [last])) == [last]
        assert store.run(lambda: store.finish(holder, [last])) == []

    @pytest.mark.parametrize("mixed", [False, True])
    def test_of_a_batch_what_matches_is_written(self, store: PortableStore, mixed: bool) -> None:
        ids = flow.enqueue(store, 6)
        claimed = {row.id: row for row in store.claim_ids(WORKER, ids)}
        done = [
            flow.outcome(claimed[key], "FAILED" if mixed and i % 2 else "SUCCESSFUL")
            for i, key in enumerate(ids)
        ]
        SubtaskRecord.objects.filter(id=ids[0]).update(claims=7)
        SubtaskRecord.objects.filter(id=ids[1]).update(worker_id=new_id())
        SubtaskRecord.objects.filter(id=ids[2]).update(status="READY")
        SubtaskRecord.objects.filter(id=ids[3]).delete()
        assert set(write(store, *done)) == set(ids[4:])

    @pytest.mark.parametrize("status", ["READY", "SCHEDULED"])
    def test_what_is_revoked_is_not_given_back(self, store: PortableStore, status: str) -> None:
        alone = claim_one(store)
        taskset = flow.make_set(store, 1)
        (member,) = flow.claim_members(store, WORKER, taskset)
        store.flag([alone.id], 1)
        TaskSetRecord.objects.update(revoke_requested_at=timezone.now())
        back = [flow.outcome(one, status, retried=True, hooks=print) for one in (alone, member)]
        written = store.run(lambda: store.finish(WORKER, back))
        assert {one.claimed.id for one in written} == {alone.id, member.id}
        assert {(o.status, o.reason, o.retried, o.hooks) for o in written} == {
            ("REVOKED", "revoked", False, None)
        }
        for one in (alone, member):
            row = flow.fetch(one.id)
            assert (row.status, row.reason, row.retries) == ("REVOKED", "revoked", 0)
            assert row.finished_at is not None

    def test_what_ends_ends_as_it_ends(self, store: PortableStore) -> None:
        claimed = claim_one(store)
        store.flag([claimed.id], 1)
        write(store, flow.outcome(claimed))
        assert flow.fetch(claimed.id).status == "SUCCESSFUL"

    @pytest.mark.parametrize(("status", "delay"), [("READY", 0), ("SCHEDULED", 60)])
    def test_a_member_of_a_paused_set_waits(
        self, store: PortableStore, status: str, delay: float
    ) -> None:
        taskset = flow.make_set(store, 1, paused_at=timezone.now())
        (claimed,) = flow.claim_members(store, WORKER, taskset)
        write(store, flow.outcome(claimed, status, delay=delay))
        row = flow.fetch(claimed.id)
        assert (row.status, row.worker_id) == ("WAITING", None)
        assert row.run_after is not None
        assert abs((row.run_after - store.now()).total_seconds() - delay) < 5

    def test_what_was_rolled_back_leaves_the_outcome_as_it_was(self, store: PortableStore) -> None:
        taskset = flow.make_set(store, 1, paused_at=timezone.now())
        (claimed,) = flow.claim_members(store, WORKER, taskset)
        outcome = flow.outcome(claimed, "READY")
        with transaction.atomic():
            store.finish(WORKER, [outcome])
            transaction.set_rollback(True)
        TaskSetRecord.objects.update(paused_at=None)
        write(store, outcome)
        assert flow.fetch(claimed.id).status == "READY"

    @pytest.mark.parametrize("status", ["SUCCESSFUL", "FAILED", "REVOKED", "READY"])
    def test_what_is_over_expires_no_more(self, store: PortableStore, status: str) -> None:
        moment = timezone.now() + datetime.timedelta(days=1)
        claimed = claim_one(store, expires_at=moment)
        write(store, flow.outcome(claimed, status))
        assert (flow.fetch(claimed.id).expires_at is None) == (status != "READY")

    def test_the_history_of_errors_has_an_end(self, store: PortableStore) -> None:
        (key,) = flow.enqueue(store, 1)
        line = json.dumps({"message": "x" * (MAX_ERRORS // 3)})
        lengths = []
        for number in range(5):
            (claimed,) = store.claim_ids(WORKER, [key])
            last = json.dumps({"number": number})
            write(store, flow.outcome(claimed, "READY", error=last if number == 4 else line))
            lengths.append(len(flow.fetch(key).get_errors()))
        # It begins anew with the latest, once it is too long.
        assert lengths == [1, 2, 3, 1, 2]
        assert flow.fetch(key).get_errors()[-1] == {"number": 4}

    def test_what_could_not_be_called_is_counted(self, store: PortableStore) -> None:
        (key,) = flow.enqueue(store, 1)
        for deferrals in (0, 1):
            (claimed,) = store.claim_ids(WORKER, [key])
            assert claimed.deferrals == deferrals
            write(store, flow.outcome(claimed, "READY", started=None, deferred=True))
        (claimed,) = store.claim_ids(WORKER, [key])
        write(store, flow.outcome(claimed, "READY", started=None))
        assert flow.fetch(key).deferrals == 2
        # Once it has been called, it begins anew.
        (claimed,) = store.claim_ids(WORKER, [key])
        write(store, flow.outcome(claimed, "READY"))
        assert flow.fetch(key).deferrals == 0

    def test_a_batch_takes_few_statements(self, store: PortableStore) -> None:
        claimed = store.claim_ids(WORKER, flow.enqueue(store, 100))
        with CaptureQueriesContext(connection) as queries:
            write(store, *map(flow.outcome, claimed))
        if type(store) is not PortableStore:
            assert len(queries) <= 6
        if type(store) is PortableStore or connection.vendor == "mysql":
            return  # row by row where nothing better is known
        claimed = store.claim_ids(WORKER, flow.enqueue(store, 100))
        mixed = ("SUCCESSFUL", "FAILED", "SCHEDULED", "READY")
        with CaptureQueriesContext(connection) as queries:
            write(store, *(flow.outcome(one, mixed[i % 4]) for i, one in enumerate(claimed)))
        assert len(queries) <= 8

    @pytest.mark.parametrize("status", ["SUCCESSFUL", "FAILED"])
    def test_it_goes_back_with_its_transaction(self, store: PortableStore, status: str) -> None:
        claimed = claim_one(store)

        def work() -> None:
            assert store.finish(WORKER, [flow.outcome(claimed, status)])
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.run(work)
        assert flow.fetch(claimed.id).status == "RUNNING"

    def test_nothing_is_fine(self, store: PortableStore) -> None:
        assert write(store) == []


class TestFinishing:
    """The quick way, where all of a batch is still this worker's."""

    def of_a_set(self, store: PortableStore, count: int) -> tuple[TaskSetRecord, list[Outcome]]:
        taskset = flow.make_set(store, count)
        held = flow.claim_members(store, WORKER, taskset)
        return taskset, [
            Outcome(one, SubtaskStatus.SUCCESSFUL, return_value="1", started=time.monotonic())
            for one in held
        ]

    def finish(self, store: PortableStore, outcomes: list[Outcome]) -> list[SetState]:
        finish = store.finishing(WORKER, outcomes, consequences(outcomes).tallies)
        if finish is None:
            pytest.skip("this store has no such way")
        return store.run(finish)

    @pytest.mark.parametrize("count", [1, 3, 60])
    def test_a_whole_batch(self, store: PortableStore, count: int) -> None:
        taskset, outcomes = self.of_a_set(store, count)
        (alone,) = [claim_one(store)]
        outcomes.append(
            Outcome(alone, SubtaskStatus.SUCCESSFUL, return_value="2", started=time.monotonic())
        )

        (state,) = self.finish(store, outcomes)

        assert (state.id, state.total, state.remaining) == (taskset.id, count, 0)
        assert flow.counts_of(taskset) == (count, 0, count, 0, 0)
        assert flow.fetch(alone.id).return_value == "2"

    def test_what_belongs_to_no_set(self, store: PortableStore) -> None:
        claimed = claim_one(store)
        outcome = Outcome(claimed, SubtaskStatus.SUCCESSFUL, return_value="1", started=1.0)

        assert self.finish(store, [outcome]) == []
        assert flow.fetch(claimed.id).status == SubtaskStatus.SUCCESSFUL

    @pytest.mark.parametrize("count", [3, 60])
    def test_one_that_is_somebody_elses(self, store: PortableStore, count: int) -> None:
        taskset, outcomes = self.of_a_set(store, count)
        last = outcomes[-1].claimed
        SubtaskRecord.objects.filter(id=last.id).update(claims=last.claims + 1)

        with pytest.raises(SomeDiffer):
            self.finish(store, outcomes)

        assert flow.counts_of(taskset) == (count, count, 0, 0, 0)
        assert not SubtaskRecord.objects.finished().exists()

    def test_what_is_recorded_already(self, store: PortableStore) -> None:
        """As after a commit that nobody acknowledged."""
        taskset, outcomes = self.of_a_set(store, 2)
        self.finish(store, outcomes)

        with pytest.raises(SomeDiffer):
            self.finish(store, outcomes)

        assert flow.counts_of(taskset) == (2, 0, 2, 0, 0)


class TestRecorded:
    def test_what_was_called_off_under_my_fence_is_mine(self, store: PortableStore) -> None:
        claimed = claim_one(store)
        store.flag([claimed.id], 1)
        outcome = flow.outcome(claimed, "SCHEDULED", retried=True)
        write(store, outcome)
        (mine,) = store.recorded(WORKER, [outcome])
        assert (mine.status, mine.reason) == ("REVOKED", "revoked")

    def test_what_is_final_under_my_fence_is_mine(self, store: PortableStore) -> None:
        claimed = store.claim_ids(WORKER, flow.enqueue(store, 2))
        done = [flow.outcome(claimed[0]), flow.outcome(claimed[1], "FAILED")]
        assert store.recorded(WORKER, done) == []
        write(store, *done)
        assert {o.claimed.id for o in store.recorded(WORKER, done)} == {c.id for c in claimed}

    def test_what_somebody_else_decided_is_not(self, store: PortableStore) -> None:
        claimed = claim_one(store)
        # The rescue records under the fence of the dead.
        write(store, Outcome(claimed, SubtaskStatus.FAILED, reason="crashed"))
        assert store.recorded(WORKER, [flow.outcome(claimed)]) == []
        failed = flow.outcome(claimed, "FAILED")
        assert store.recorded(new_id(), [failed]) == []
        failed.claimed = claimed._replace(claims=2)
        assert store.recorded(WORKER, [failed]) == []

    def test_nothing_is_fine(self, store: PortableStore) -> None:
        assert store.recorded(WORKER, []) == []


@pytest.mark.django_db(transaction=True)
class TestFree:
    def test_all_is_free_if_nobody_holds_it(self, store: PortableStore) -> None:
        claimed = [claim_one(store), *self.members(store)]
        done = [flow.outcome(one) for one in claimed]
        assert store.free(done) == done
        assert store.free([]) == []

    def test_what_is_gone_is_free(self, store: PortableStore) -> None:
        done = [flow.outcome(claim_one(store))]
        SubtaskRecord.objects.all().delete()
        assert store.free(done) == done

    def test_what_somebody_holds_is_not(
        self, store: PortableStore, other_connection: BaseDatabaseWrapper
    ) -> None:
        if not connection.features.has_select_for_update_skip_locked:
            pytest.skip("this database has one writer at a time")
        alone, (one, two), free = claim_one(store), self.members(store), claim_one(store)
        callback = claim_one(store, taskset_id=one.taskset_id.hex, role=Role.ON_SUCCESS)
        done = [flow.outcome(claimed) for claimed in (alone, one, two, free, callback)]
        with transaction.atomic(using="other"):
            subtasks = SubtaskRecord.objects.using("other").order_by().select_for_update()
            sets = TaskSetRecord.objects.using("other").order_by().select_for_update()
            assert len(subtasks.filter(id=alone.id)) == len(sets.filter(id=one.taskset_id)) == 1
            assert [o.claimed.id for o in store.free(done)] == [free.id, callback.id]
        assert store.free(done) == done

    def members(self, store: PortableStore) -> Any:
        return flow.claim_members(store, WORKER, flow.make_set(store, 2))


class TestCount:
    def test_members_move_to_their_outcomes(self, store: PortableStore) -> None:
        one, two = flow.make_sets(store, 2, 10)
        tallies = [Tally(one.id, 3, 2, 1, 1.5), Tally(two.id, 0, 0, 10, 0)]
        states = {state.id: state for state in store.run(lambda: store.count(tallies))}
        assert flow.counts_of(one) == (10, 4, 3, 2, 1)
        assert flow.counts_of(two) == (10, 0, 0, 0, 10)
        for taskset in (one, two):
            taskset.refresh_from_db()
            state = states[taskset.id]
            fields = ("status", "total", "remaining", "failed", "revoked", "generation")
            assert [getattr(state, name) for name in fields] == [
                getattr(taskset, name) for name in fields
            ]
            assert state.sealed_at is not None
            assert (state.revoke_requested_at, state.paused_at) == (None, None)
            assert (state.max_failures, state.max_failures_percent) == (None, None)
            assert state.has_callbacks is False

    def test_a_set_begins_with_its_first_member(self, store: PortableStore) -> None:
        taskset = flow.make_set(store, 10)

        def began(age: float, revoked: int) -> datetime.datetime | None:
            store.run(lambda: store.count([Tally(taskset.id, 0, 0, revoked, age)]))
            taskset.refresh_from_db()
            return taskset.started_at

        assert began(0, 0) is None
        assert began(0, 1) is None
        first = began(100, 1)
        assert first is not None
        assert 95 < (store.now() - first).total_seconds() < 105
        assert began(500, 1) == first

    def test_a_set_that_is_gone_is_left_out(self, store: PortableStore) -> None:
        taskset = flow.make_set(store, 1)
        tallies = [Tally(new_id(), 1, 0, 0, 1.0), Tally(taskset.id, 1, 0, 0, 1.0)]
        assert [s.id for s in store.run(lambda: store.count(sorted(tallies)))] == [taskset.id]
        assert store.run(lambda: store.count([])) == []

    def test_what_does_not_add_up_is_refused(self, store: PortableStore) -> None:
        taskset = flow.make_set(store, 1)
        with pytest.raises(IntegrityError):
            store.run(lambda: store.count([Tally(taskset.id, 2, 0, 0, 1.0)]))
        assert flow.counts_of(taskset) == (1, 1, 0, 0, 0)

    def test_many_sets_take_few_statements(self, store: PortableStore) -> None:
        made = flow.make_sets(store, 300, 2)
        tallies = sorted(Tally(one.id, 1, 0, 0, 0.1 + i) for i, one in enumerate(made))
        with CaptureQueriesContext(connection) as queries:
            states = store.run(lambda: store.count(tallies))
        assert len(states) == 300
        assert {flow.counts_of(one) for one in made} == {(2, 1, 1, 0, 0)}
        if connection.vendor != "sqlite" or type(store) is PortableStore:
            # SQLite has no round trips: there a prepared statement for each set is the fastest.
            assert len(queries) <= 5


class TestClosing:
    def test_only_what_is_over_is_closed(self, store: PortableStore) -> None:
        good, bad = flow.make_sets(store, 2, 0)
        busy = flow.make_set(store, 1)
        still_open = flow.make_set(store, 0, sealed=False)
        saved = flow.make_set(store, 0, status="SAVED")
        made = (good, bad, busy, still_open, saved)
        final = [TaskSetStatus.SUCCESSFUL, TaskSetStatus.FAILED, *[TaskSetStatus.REVOKED] * 3]
        store.run(lambda: store.close_sets([(s.id, f) for s, f in zip(made, final, strict=True)]))
        for taskset in made:
            taskset.refresh_from_db()
        assert [one.status for one in made] == [
            "SUCCESSFUL", "FAILED", "RUNNING", "RUNNING", "SAVED",
        ]  # fmt: skip
        assert [one.finished_at is not None for one in made] == [True, True, False, False, False]

    def test_waiting_callbacks_are_those_of_the_generation(self, store: PortableStore) -> None:
        one, two = flow.make_sets(store, 2, 1, callbacks=flow.CALLBACKS)
        store.run(lambda: store.insert(flow.callback_rows(one.id, flow.CALLBACKS, generation=2)))
        SubtaskRecord.objects.filter(taskset=two, role=Role.ON_FAILURE).update(status="READY")

        def waiting(*wanted: tuple[TaskSetRecord, int]) -> set[Any]:
            sets = [(taskset.id, generation) for taskset, generation in wanted]
            rows = store.run(lambda: store.waiting_callbacks(sets))
            assert [row.id for row in rows] == sorted(row.id for row in rows)
            return {row[1:5] for row in rows}

        def of(taskset: TaskSetRecord, generation: int, *roles: str) -> set[Any]:
            return {(taskset.id, role, generation, "callbacks") for role in roles}

        assert waiting((one, 2)) == of(one, 2, *flow.CALLBACKS)
        assert waiting((one, 1), (one, 2)) == of(one, 1, *flow.CALLBACKS) | of(
            one, 2, *flow.CALLBACKS
        )
        assert waiting((one, 1), (two, 1)) == of(one, 1, *flow.CALLBACKS) | of(
            two, 1, Role.ON_SUCCESS, Role.ON_FINISH
        )
        assert waiting((two, 2)) == waiting() == set()

    def test_callbacks_are_released_or_not_needed(self, store: PortableStore) -> None:
        taskset = flow.make_set(store, 1, callbacks=flow.CALLBACKS)
        rows = {row.role: row for row in SubtaskRecord.objects.filter(position__lt=0)}
        later = timezone.now() + datetime.timedelta(hours=1)
        SubtaskRecord.objects.filter(role=Role.ON_FINISH).update(run_after=later)
        released = [rows[Role.ON_SUCCESS].id, rows[Role.ON_FINISH].id]

        def release() -> None:
            store.release_callbacks(released, [rows[Role.ON_FAILURE].id], "not needed")

        store.run(release)
        expected = {"ON_SUCCESS": "READY", "ON_FINISH": "SCHEDULED", "ON_FAILURE": "REVOKED"}
        assert flow.callbacks_of(taskset) == expected
        unneeded = flow.fetch(rows[Role.ON_FAILURE].id)
        assert unneeded.reason == "not needed"
        assert unneeded.finished_at is not None
        # What is not WAITING any more stays as it is.
        SubtaskRecord.objects.filter(position__lt=0).update(status="RUNNING")
        store.run(release)
        assert set(flow.callbacks_of(taskset).values()) == {"RUNNING"}


class TestRead:
    def test_what_came_of_a_subtask(self, store: PortableStore) -> None:
        waiting = flow.enqueue(store)[0]
        claimed = claim_one(store)
        text = '"é漢🎈\\n\'%s"'
        write(store, Outcome(claimed, SubtaskStatus.SUCCESSFUL, return_value=text))

        assert store.result_row(waiting) == (None, "READY", 0, "", None, "")
        assert store.result_row(claimed.id) == (None, "SUCCESSFUL", 0, "", text, "")

    def test_an_id_that_is_unknown(self, store: PortableStore) -> None:
        assert store.result_row(new_id()) is None


class TestRevoke:
    def test_what_no_worker_holds_is_revoked(self, store: PortableStore) -> None:
        taskset = flow.make_set(store, len(SubtaskStatus))
        rows = list(SubtaskRecord.objects.order_by("position"))
        for row, status in zip(rows, SubtaskStatus, strict=True):
            SubtaskRecord.objects.filter(id=row.id).update(status=status)
        ended = store.run(lambda: store.revoke([row.id for row in rows], "because"))
        pending = [SubtaskStatus.WAITING, SubtaskStatus.READY, SubtaskStatus.SCHEDULED]
        assert {(one.id, one.taskset_id, one.role, one.generation) for one in ended} == {
            (row.id, taskset.id, "MEMBER", 1)
            for row, status in zip(rows, SubtaskStatus, strict=True)
            if status in pending
        }
        for row, status in zip(rows, SubtaskStatus, strict=True):
            row.refresh_from_db()
            if status in pending:
                assert (row.status, row.reason) == ("REVOKED", "because")
                assert row.finished_at is not None
            else:
                assert (row.status, row.reason) == (status, "")

    def test_flags_are_raised_and_never_lowered(self, store: PortableStore) -> None:
        held, ready = claim_one(store), flow.enqueue(store)[0]
        for flag, expected in ((1, 1), (2, 2), (1, 2)):
            assert store.run(lambda f=flag: store.flag([held.id, ready], f)) == 1  # type: ignore[misc]
            assert flow.fetch(held.id).revoke_flag == expected
        assert flow.fetch(ready).revoke_flag == 0

    def test_a_worker_learns_what_is_revoked(self, store: PortableStore) -> None:
        taskset = flow.make_set(store, 1, revoke_requested_at=timezone.now())
        (member,) = flow.claim_members(store, WORKER, taskset)
        flagged, other, theirs = claim_one(store), claim_one(store), flow.enqueue(store)[0]
        callback = claim_one(store, taskset_id=taskset.id.hex, role=Role.ON_FAILURE, position=-1)
        store.claim_ids(new_id(), [theirs])
        store.run(lambda: store.flag([flagged.id, theirs], 2))
        assert set(store.flagged(WORKER)) == {Held(member.id, 1, 0), Held(flagged.id, 1, 2)}
        assert {other.id, callback.id}.isdisjoint(held.id for held in store.flagged(WORKER))

    @pytest.mark.django_db(transaction=True)
    def test_locked_rows_are_passed_over(
        self, store: PortableStore, other_connection: BaseDatabaseWrapper
    ) -> None:
        if not connection.features.has_select_for_update_skip_locked:
            pytest.skip("this database has one writer at a time")
        ready, running = flow.enqueue(store, 2), [claim_one(store).id for _ in range(2)]
        due = flow.enqueue(store, 2, status="SCHEDULED", run_after=timezone.now())
        with transaction.atomic(using="other"):
            others = SubtaskRecord.objects.using("other").order_by().select_for_update()
            assert len(others.filter(id__in=[ready[0], running[0], due[0]])) == 3
            assert [one.id for one in store.run(lambda: store.revoke(ready, ""))] == ready[1:]
            assert store.run(lambda: store.flag(running, 1)) == 1
            assert store.promote(10) == {"default"}
        assert flow.statuses_of(ready) == ["READY", "REVOKED"]
        assert flow.statuses_of(due) == ["SCHEDULED", "READY"]


class TestPromote:
    def test_what_is_due_is_promoted(self, store: PortableStore) -> None:
        now = store.now()
        past, future = now - datetime.timedelta(seconds=1), now + datetime.timedelta(hours=1)
        due = flow.enqueue(store, 2, status="SCHEDULED", run_after=past, queue_name="a")
        (later,) = flow.enqueue(store, status="SCHEDULED", run_after=future, queue_name="b")
        (waiting,) = flow.enqueue(store, status="WAITING", run_after=past, queue_name="c")
        assert store.promote(100) == {"a"}
        assert flow.statuses_of([*due, later, waiting]) == [
            "READY", "READY", "SCHEDULED", "WAITING",
        ]  # fmt: skip
        assert store.promote(100) == set()

    def test_the_soonest_come_first(self, store: PortableStore) -> None:
        now = store.now()
        ids = [
            flow.enqueue(
                store, status="SCHEDULED", run_after=now - datetime.timedelta(seconds=age)
            )[0]
            for age in (10, 30, 20)
        ]
        assert store.promote(2) == {"default"}
        assert flow.statuses_of(ids) == ["SCHEDULED", "READY", "READY"]

    def test_members_of_a_paused_set_wait(self, store: PortableStore) -> None:
        due = {"status": "SCHEDULED", "run_after": store.now() - datetime.timedelta(seconds=1)}
        flow.make_set(store, 2, member=due | {"queue_name": "a"}, paused_at=timezone.now())
        flow.make_set(store, 2, member=due | {"queue_name": "b"})
        assert store.promote(100) == {"b"}
        statuses = SubtaskRecord.objects.values_list("queue_name", "status").distinct()
        assert set(statuses) == {("a", "WAITING"), ("b", "READY")}

    def test_many_take_few_statements(self, store: PortableStore) -> None:
        past = store.now() - datetime.timedelta(seconds=1)
        flow.enqueue(store, 1_000, status="SCHEDULED", run_after=past)
        with CaptureQueriesContext(connection) as queries:
            store.promote(1_000)
        assert SubtaskRecord.objects.ready().count() == 1_000
        assert len(queries) <= 12


class TestTransactions:
    def test_what_raises_leaves_nothing(self, store: PortableStore) -> None:
        def work() -> None:
            store.insert([flow.new_row()])
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.run(work)
        assert not SubtaskRecord.objects.exists()

    @pytest.mark.django_db(transaction=True)
    def test_a_deadlock_is_tried_again(
        self, store: PortableStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "is_transient", lambda error: "deadlock" in str(error))
        tries = []

        def work() -> int:
            store.insert([flow.new_row()])
            tries.append(1)
            if len(tries) < 3:
                raise OperationalError("deadlock")
            return len(tries)

        assert store.run(work) == 3
        assert SubtaskRecord.objects.count() == 1

    @pytest.mark.django_db(transaction=True)
    def test_not_for_ever(self, store: PortableStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "is_transient", lambda error: True)
        monkeypatch.setattr("django_tasksets.store.transactions.time.sleep", lambda seconds: None)
        tries = []

        def work() -> None:
            tries.append(1)
            raise OperationalError("deadlock")

        with pytest.raises(OperationalError):
            store.run(work)
        assert len(tries) == 10

    def test_not_in_the_callers_transaction(
        self, store: PortableStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the caller has written before is gone with a deadlock, too: it has to know."""
        monkeypatch.setattr(store, "is_transient", lambda error: True)
        tries = []

        def work() -> None:
            tries.append(1)
            raise OperationalError("deadlock")

        with transaction.atomic(), pytest.raises(OperationalError):
            store.run(work)
        assert tries == [1]

    @pytest.mark.django_db(transaction=True)
    def test_nor_without_autocommit(
        self, store: PortableStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "is_transient", lambda error: True)
        tries = []

        def work() -> None:
            tries.append(1)
            raise OperationalError("deadlock")

        transaction.set_autocommit(False)
        try:
            with pytest.raises(OperationalError):
                store.run(work)
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
        assert tries == [1]

    def test_other_errors_are_raised_at_once(self, store: PortableStore) -> None:
        tries = []

        def work() -> None:
            tries.append(1)
            raise DatabaseError("no such table")

        with pytest.raises(DatabaseError, match="no such table"):
            store.run(work)
        assert tries == [1]

    def test_the_databases_time_is_now(self, store: PortableStore) -> None:
        before, now, after = timezone.now(), store.now(), timezone.now()
        assert timezone.is_aware(now)
        second = datetime.timedelta(seconds=1)
        assert before - second < now < after + second
        # SQLite compares with a time that is cut off after the milliseconds.
        due = store.now() - datetime.timedelta(milliseconds=1)
        flow.enqueue(store, status="SCHEDULED", run_after=due)
        assert store.promote(1) == {"default"}

    def test_rows_are_locked_in_the_order_of_ids(self, store: PortableStore) -> None:
        ids = sorted(flow.enqueue(store, 5))
        with transaction.atomic():
            rows = store.locked(SubtaskRecord.objects.order_by("-id"), skip=True)
            assert [row.id for row in rows] == ids


def test_batches_hold_at_most_so_many() -> None:
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches([], 2)) == []


def test_every_alias_has_one_store() -> None:
    assert get_store() is get_store("default")
    assert get_store().alias == "default"
    assert connections["default"].vendor in type(get_store()).__module__
