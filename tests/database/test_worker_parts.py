"""A worker process's claimer, recorder and announcer, without their threads."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.db import (
    DatabaseError,
    InternalError,
    OperationalError,
    connection,
)

from django_tasksets import signals
from django_tasksets.execution import Worker
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.recording import Recorded, record
from django_tasksets.store import get_store
from django_tasksets.store.contract import Bell, Claimed, Listener, Outcome, Store
from django_tasksets.wakeups import LocalBell
from django_tasksets.worker import announcements as announcements_module
from django_tasksets.worker import claimer as claimer_module
from django_tasksets.worker import recorder as recorder_module
from django_tasksets.worker.announcements import Announcements
from django_tasksets.worker.board import DEAD, Board
from django_tasksets.worker.claimer import Claimer
from django_tasksets.worker.executor import Executors
from django_tasksets.worker.load import Load
from django_tasksets.worker.options import WorkerOptions
from django_tasksets.worker.recorder import Recorder
from tests import flow, tasks

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def worker() -> Worker:
    store = get_store()
    return Worker(store=store, id=flow.new_worker(store))


def claim(worker: Worker, *ids: uuid.UUID) -> list[Claimed]:
    return worker.store.claim_ids(worker.id, ids)


class Parts:
    """A worker process's parts; none of its threads has been started."""

    def __init__(self, worker: Worker) -> None:
        options = WorkerOptions(alias="default", processes=1, threads=2, async_concurrency=3)
        self.worker = worker
        self.load = Load(options, LocalBell(), at_once=500)
        self.board = Board(places=1, slots=options.slots)
        self.board.confirm(0, time.monotonic())
        self.executors = Executors(worker, self.load, self.board, 0, options)
        self.announcements = Announcements(worker.store, self.load)
        self.recorder = Recorder(worker, self.load, self.executors, self.announcements)
        self.claimer = Claimer(
            worker,
            self.load,
            self.executors,
            self.board,
            0,
            options,
            on_end=lambda: None,
        )

    def claim_all(self) -> list[Claimed]:
        self.claimer.turn()
        return self.load.held()

    def put(self, *outcomes: Outcome) -> None:
        for outcome in outcomes:
            self.executors.outbox.put(outcome)


@pytest.fixture
def parts(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    # In the thread of the test, whose connection must stay the one that pytest knows.
    monkeypatch.setattr(Recorder, "_connect", lambda self: None)
    parts = Parts(worker)
    yield parts
    parts.executors.loop._loop.close()


def counted_claims(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by how many each claim brings."""
    claims: list[int] = []
    claim_rows = parts.worker.store.claim

    def count(worker_id: uuid.UUID, queues: Sequence[str], limit: int) -> list[Claimed]:
        rows = claim_rows(worker_id, queues, limit)
        claims.append(len(rows))
        return rows

    monkeypatch.setattr(parts.worker.store, "claim", count)
    return claims


def test_a_claim_without_an_answer_is_taken_over(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was committed, and the connection broke before the claimer heard of it."""
    ids = flow.enqueue(parts.worker.store, 2)
    store = parts.worker.store
    claim_rows = store.claim

    def lose(worker_id: uuid.UUID, queues: Sequence[str], limit: int) -> list[Claimed]:
        claim_rows(worker_id, queues, limit)
        raise OperationalError("the connection is gone")

    with monkeypatch.context() as patch:
        patch.setattr(store, "claim", lose)
        with pytest.raises(DatabaseError):
            parts.claimer.turn()
    assert (flow.statuses_of(ids), parts.load.in_flight) == (["RUNNING"] * 2, 0)

    parts.claimer.reconnected()

    assert sorted(one.id for one in parts.load.held()) == sorted(ids)
    assert parts.executors.waiting() == 2
    parts.claimer.reconnected()
    assert parts.executors.waiting() == 2


def test_one_that_was_given_back_and_claimed_again_is_executed(parts: Parts) -> None:
    flow.enqueue(parts.worker.store)
    (first,) = parts.claim_all()
    SubtaskRecord.objects.update(status="READY", worker_id=None, claimed_at=None)

    # While something is under way, it first waits for more to come.
    parts.claimer.turn()
    parts.claimer.turn()

    (second,) = parts.load.held()
    assert second.claims == first.claims + 1
    assert parts.executors.waiting() == 2


def test_few_are_claimed_together_with_what_comes_while_others_are_under_way(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, naps, claims = parts.worker.store, list[float](), counted_claims(parts, monkeypatch)
    monkeypatch.setattr(parts.claimer, "sleep", naps.append)
    monkeypatch.setattr(parts.claimer, "_wait_for_work", lambda pause: None)
    parts.load.observe(0.001)
    flow.enqueue(store, 2)
    parts.claimer.turn()
    assert (claims, naps) == ([2], [])
    flow.enqueue(store, 2)
    parts.claimer.turn()
    assert claims == [2]
    assert 0 < naps[0] <= claimer_module.GATHER
    # When those are recorded there is nothing to wait for, and not for ever if they take long.
    parts.load.drop(parts.load.held())
    parts.claimer.turn()
    assert (claims, len(naps)) == ([2, 2], 1)


def test_what_takes_long_does_not_keep_others_waiting_each_time(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.claimer, "_wait_for_work", lambda pause: None)
    parts.load.observe(0.001)
    flow.enqueue(parts.worker.store)
    parts.claimer.turn()
    (long,) = parts.load.held()
    gathered = 0
    for _ in range(5):
        flow.enqueue(parts.worker.store)
        while parts.load.in_flight < 2:
            gathered += parts.claimer._gathering() > 0
            parts.claimer.turn()
        parts.load.drop(one for one in parts.load.held() if one.id != long.id)
    assert gathered == 1


def test_where_much_is_left_a_claim_waits_for_nothing(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.claimer, "sleep", lambda pause: pytest.fail("waits"))
    parts.load.observe(0.1)
    flow.enqueue(parts.worker.store, 20)
    parts.claimer.turn()
    while parts.executors.waiting():
        parts.executors._inbox.get()
    parts.claimer.turn()
    assert parts.load.in_flight == 8


def claim_some(parts: Parts, count: int, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """The names of the verbs that a claim asks the store for, and the names of the tasks."""
    asked: list[str] = []
    store = parts.worker.store
    claim_rows, kind = store.claim, ("default", 0)

    def claim_on(worker_id: uuid.UUID, last: Claimed, limit: int) -> list[Claimed]:
        asked.append("on")
        assert (last.queue_name, last.priority) == kind
        ready = SubtaskRecord.objects.ready().filter(queue_name=kind[0], priority=kind[1])
        behind = ready.filter(claim_order__gte=last.claim_order).order_by("claim_order")
        return store.claim_ids(worker_id, list(behind.values_list("id", flat=True)[:limit]))

    def claim(worker_id: uuid.UUID, queues: Sequence[str], limit: int) -> list[Claimed]:
        asked.append("all")
        return claim_rows(worker_id, queues, limit)

    with monkeypatch.context() as patch:
        patch.setattr(store, "claim_on", claim_on)
        patch.setattr(store, "claim", claim)
        rows = parts.claimer._next(count)
    return " ".join(asked), [row.args for row in rows]


def claim_two_of(count: int, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two of so many of one kind; the next claims go on for as long as the test takes."""
    for order in range(count):
        flow.enqueue(parts.worker.store, claim_order=order, args=f"[{order}]")
    monkeypatch.setattr(claimer_module, "LOOK_AROUND", 1000)
    assert claim_some(parts, 2, monkeypatch) == ("all", ["[0]", "[1]"])


def test_where_there_is_much_of_one_kind_a_claim_goes_on(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = parts.worker.store
    claim_two_of(6, parts, monkeypatch)
    flow.enqueue(store, claim_order=9, args='["urgent"]', priority=5)
    flow.enqueue(store, claim_order=0, args='["early"]')
    assert claim_some(parts, 2, monkeypatch) == ("on", ["[2]", "[3]"])
    # Not for long: whatever else there is has its turn.
    assert 0 < parts.claimer._looks_around_at - time.monotonic() <= 1000
    parts.claimer._looks_around_at = time.monotonic()
    assert claim_some(parts, 2, monkeypatch) == ("all", ['["urgent"]', '["early"]'])


def test_a_claim_that_goes_on_leaves_nothing_out(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When one kind comes to its end, and where there are several."""
    store = parts.worker.store
    claim_two_of(3, parts, monkeypatch)
    flow.enqueue(store, claim_order=9, args='["mail"]', queue_name="mail")
    flow.enqueue(store, claim_order=9, args='["urgent"]', priority=5)
    assert claim_some(parts, 3, monkeypatch) == ("on all", ['["urgent"]', "[2]", '["mail"]'])
    flow.enqueue(store, claim_order=20, args="[20]")
    assert claim_some(parts, 1, monkeypatch) == ("all", ["[20]"])
    assert claim_some(parts, 1, monkeypatch) == ("on all", [])
    assert claim_some(parts, 1, monkeypatch) == ("all", [])


@pytest.mark.parametrize(("is_left", "queues"), [(True, ["default"]), (False, [])])
def test_others_are_woken_for_what_this_process_has_not_claimed(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, is_left: bool, queues: list[str]
) -> None:
    woken: list[str] = []
    monkeypatch.setattr(recorder_module, "wake", lambda _, names: woken.extend(names))
    flow.enqueue(parts.worker.store)
    (held,) = parts.claim_all()
    parts.recorder._follow_up(Recorded(ready={held.id: "default"}))
    # Not at once: the claimer of this process has been woken.
    assert parts.recorder._notify_at > time.monotonic()
    if not is_left:
        parts.load.drop([held])
        assert parts.claimer._claim(5) == 0
    parts.recorder._notify()
    assert woken == queues


def test_of_other_queues_a_claim_says_nothing(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.load, "_queues", frozenset({"mail"}))
    parts.load.all_claimed_at = time.monotonic()
    assert parts.load.unclaimed({"mail", "default"}, time.monotonic() - 1) == {"default"}
    assert parts.load.unclaimed({"mail"}, time.monotonic()) == {"mail"}


def test_sets_that_finished_are_acknowledged_together(parts: Parts) -> None:
    told: list[Any] = []

    def receive(taskset_id: uuid.UUID, **_: Any) -> None:
        told.append(taskset_id)

    def note(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        statements.append(sql)
        return execute(sql, *arguments)

    store, statements = parts.worker.store, list[str]()
    sets = [flow.make_set(store, 1) for _ in range(3)]
    held = claim(parts.worker, *SubtaskRecord.objects.values_list("id", flat=True))
    signals.taskset_finished.connect(receive)
    try:
        for one in held:
            parts.announcements.put(record(store, parts.worker.id, [flow.outcome(one)]))
        parts.announcements._queue.put(None)
        with connection.execute_wrapper(note):
            parts.announcements.run()
    finally:
        signals.taskset_finished.disconnect(receive)
    assert sorted(told) == sorted(one.id for one in sets)
    assert not TaskSetRecord.objects.filter(announced_at=None).exists()
    assert sum("announced_at" in statement for statement in statements) == 1


def test_an_acknowledgement_comes_soon_though_nothing_else_does(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements_module, "ACKNOWLEDGE_WITHIN", 0.05)
    acknowledge = parts.announcements._announcer.acknowledge

    def then_end() -> None:
        acknowledge()
        parts.announcements._queue.put(None)

    monkeypatch.setattr(parts.announcements._announcer, "acknowledge", then_end)
    flow.make_set(parts.worker.store, 1)
    (one,) = claim(parts.worker, *SubtaskRecord.objects.values_list("id", flat=True))
    parts.announcements.put(record(parts.worker.store, parts.worker.id, [flow.outcome(one)]))
    began = time.monotonic()
    parts.announcements.run()
    assert 0.05 <= time.monotonic() - began < 5
    assert TaskSetRecord.objects.get().announced_at is not None


@pytest.mark.parametrize(("time_to_end", "together"), [(5.0, 3), (20.0, 1)])
def test_results_that_are_about_to_come_are_waited_for(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, time_to_end: float, together: int
) -> None:
    monkeypatch.setattr(recorder_module, "LINGER", 10.0)
    monkeypatch.setattr(parts.load, "time_to_end", lambda waiting: time_to_end)
    flow.enqueue(parts.worker.store, 3)
    first, *others = map(
        flow.outcome, claim(parts.worker, *SubtaskRecord.objects.values_list("id", flat=True))
    )
    parts.load.take([first.claimed, *(other.claimed for other in others)], [], 0)
    parts.put(first)
    timer = threading.Timer(0.05, parts.put, others)
    timer.start()

    began = time.monotonic()
    batch = parts.recorder._next_batch()

    assert len(batch) == together
    assert time.monotonic() - began < 2
    timer.join()


def test_a_session_that_the_server_ends_is_no_fault_of_the_results(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever class the error is of: Django has closed the connection."""
    flow.enqueue(parts.worker.store, 2)
    outcomes = [flow.outcome(one) for one in parts.claim_all()]
    open_, tries = connection.connection, []

    def end_session(*arguments: Any) -> Any:
        tries.append(arguments)
        if len(tries) == 1:
            connection.connection = None
            raise InternalError("terminating connection due to idle-in-transaction timeout")
        connection.connection = open_
        return record(*arguments)

    monkeypatch.setattr(recorder_module, "record", end_session)

    assert len(parts.recorder._record(outcomes).written) == 2
    assert "recording failed" not in caplog.text


def test_who_is_not_known_to_live_claims_nothing(parts: Parts) -> None:
    ids = flow.enqueue(parts.worker.store, 2)
    parts.board.confirm(0, DEAD)
    assert parts.claim_all() == []
    assert flow.statuses_of(ids) == ["READY"] * 2
    parts.board.confirm(0, time.monotonic())
    assert len(parts.claim_all()) == 2


def test_async_subtasks_are_claimed_past_others(parts: Parts) -> None:
    flow.enqueue(parts.worker.store, 10)
    behind = flow.enqueue(parts.worker.store, 5, task_name=tasks.aadd.name)
    parts.load.begin(0, 0)
    parts.load.begin(1, 0)

    held = parts.claim_all()

    assert {one.id for one in held} < set(behind)
    assert len(held) == 3


def test_suspects_go_to_the_threads_async_or_not(parts: Parts) -> None:
    (key,) = flow.enqueue(parts.worker.store, task_name=tasks.aadd.name, args="[1,2]")
    SubtaskRecord.objects.update(crashes=1)
    assert [one.id for one in parts.claim_all()] == [key]
    assert parts.executors.waiting() == 1


def test_a_suspect_is_known_to_have_ended_before_others_may_begin(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them may end the process at once, and it would be charged with that."""
    (key,) = flow.enqueue(parts.worker.store)
    SubtaskRecord.objects.update(crashes=1)
    parts.claimer.turn()
    suspect = parts.executors._inbox.get_nowait()
    assert isinstance(suspect, Claimed)
    executing, let_others_begin = [], parts.load.is_alone_no_more

    def note() -> None:
        executing.append(parts.board.executing(0))
        let_others_begin()

    monkeypatch.setattr(parts.load, "is_alone_no_more", note)

    parts.executors._execute(suspect, 0)

    assert executing == [[]]
    parts.recorder._turn()
    assert flow.fetch(key).status == "SUCCESSFUL"


def test_one_outcome_that_cannot_be_recorded_does_not_keep_the_others(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = flow.enqueue(parts.worker.store, 3)
    held = claim(parts.worker, *ids)
    parts.load.take(held, [], 0)

    def refuse(store: Store, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> Recorded:
        if any(one.claimed.id == ids[1] and one.return_value for one in outcomes):
            raise RuntimeError("a bug")
        return record(store, worker_id, outcomes)

    parts.put(*map(flow.outcome, held))
    with monkeypatch.context() as patch:
        patch.setattr(recorder_module, "record", refuse)
        parts.recorder._turn()

    assert flow.statuses_of(ids) == ["SUCCESSFUL", "FAILED", "SUCCESSFUL"]
    assert flow.fetch(ids[1]).reason == "the result could not be recorded"
    assert parts.load.in_flight == 0


def test_what_nobody_can_record_is_parked_and_tried_again(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = flow.enqueue(parts.worker.store, 2)
    good, bad = claim(parts.worker, *ids)
    parts.load.take([good, bad], [], 0)

    def refuse(store: Store, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> Recorded:
        if any(outcome.claimed.id == bad.id for outcome in outcomes):
            raise RuntimeError("a bug")
        return record(store, worker_id, outcomes)

    parts.put(flow.outcome(good), flow.outcome(bad))
    with monkeypatch.context() as patch:
        patch.setattr(recorder_module, "record", refuse)
        parts.recorder._turn()
    assert flow.statuses_of([good.id, bad.id]) == ["SUCCESSFUL", "RUNNING"]
    assert parts.load.held() == [bad]

    parts.recorder._retry_at = time.monotonic()
    parts.recorder._turn()

    assert flow.fetch(bad.id).status == "SUCCESSFUL"
    assert parts.load.in_flight == 0


def test_outcomes_of_a_set_that_is_parked_wait_with_the_others(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = parts.worker.store
    held_set, free_set = flow.make_set(store, 2), flow.make_set(store, 1)
    first, second, other = flow.claim_members(store, parts.worker.id, held_set, free_set)
    if first.taskset_id != held_set.id:
        other, first, second = first, second, other
    parts.load.take([first, second, other], [], 0)
    parts.recorder._follow_up(Recorded(parked=[flow.outcome(first)]))

    parts.put(flow.outcome(second), flow.outcome(other))
    parts.recorder._turn()

    rows = [first.id, second.id, other.id]
    assert flow.statuses_of(rows) == ["RUNNING", "RUNNING", "SUCCESSFUL"]
    parts.recorder._retry_at = time.monotonic()
    parts.recorder._turn()
    assert flow.statuses_of(rows) == ["SUCCESSFUL"] * 3
    assert flow.counts_of(held_set) == (2, 0, 2, 0, 0)


class Scripted(Listener):
    """Hears what it is told to."""

    def __init__(self) -> None:
        self.hears = False
        self.waits = 0

    def wait(self, timeout: float, bell: Bell) -> bool:
        self.waits += 1
        return self.hears

    def close(self) -> None:
        """Nothing to give back."""


@pytest.mark.parametrize("tells", ["listener", "bell"])
def test_where_nothing_was_left_a_claim_waits_until_somebody_tells_of_more(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, tells: str
) -> None:
    store, listener, claims = parts.worker.store, Scripted(), counted_claims(parts, monkeypatch)
    monkeypatch.setattr(parts.claimer, "_listener", listener)
    parts.load.observe(0.01)
    flow.enqueue(store, 2)
    parts.claimer.turn()
    assert (claims, listener.waits) == ([2], 1)
    flow.enqueue(store)
    parts.claimer.turn()
    parts.claimer.turn()
    assert (claims, listener.waits) == ([2], 3)

    if tells == "bell":
        parts.load.bell.ring()
    else:
        listener.hears = True
    while len(claims) == 1:
        parts.claimer.turn()
    assert claims == [2, 1]


def test_whoever_begins_to_listen_looks_for_what_came_before(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claimer_module, "listen", lambda store: Scripted())
    assert parts.claimer._listener is None
    parts.claimer.turn()
    assert isinstance(parts.claimer._listener, Scripted)
    flow.enqueue(parts.worker.store)
    parts.claimer.turn()
    assert parts.load.in_flight == 1


def test_what_was_told_while_there_was_no_room_is_looked_for(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = counted_claims(parts, monkeypatch)
    monkeypatch.setattr(parts.claimer, "_listener", Scripted())
    flow.enqueue(parts.worker.store)
    parts.claimer.turn()
    assert (claims, parts.claimer._is_dry) == ([1], True)

    # Hooks, for example, take what room there is.
    parts.load.begin(0, waiting=1)
    parts.load.begin(1, waiting=1)
    monkeypatch.setattr(parts.load, "room_in_loop", lambda: 0)
    parts.claimer.turn()
    assert not parts.claimer._is_dry
