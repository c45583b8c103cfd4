"""Workers that claim, record and lose subtasks at the same moment."""

from __future__ import annotations

import random
import uuid
from functools import partial

import pytest

from django_tasksets.control import revoke_set, revoke_subtasks
from django_tasksets.maintenance import mark_lost, rescue
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.recording import Recorded, record
from django_tasksets.statuses import Role
from django_tasksets.store import get_store
from django_tasksets.store.contract import Claimed
from tests import flow
from tests.concurrency import together

pytestmark = pytest.mark.django_db(transaction=True)


def test_each_subtask_is_claimed_once() -> None:
    store = get_store()
    ids = flow.enqueue(store, 300, queue_name="a") + flow.enqueue(store, 100, queue_name="b")
    workers = [flow.new_worker(store) for _ in range(4)]

    def by_queue(worker: uuid.UUID, queues: list[str]) -> list[uuid.UUID]:
        claimed: list[uuid.UUID] = []
        while rows := store.claim(worker, queues, random.randint(1, 9)):
            claimed += [row.id for row in rows]
        return claimed

    def by_id(worker: uuid.UUID) -> list[uuid.UUID]:
        mine = random.sample(ids, len(ids))
        return [row.id for key in mine for row in store.claim_ids(worker, [key])]

    claimed = together(
        lambda: by_queue(workers[0], []),
        lambda: by_queue(workers[1], ["b", "a"]),
        lambda: by_queue(workers[2], ["a"]),
        lambda: by_id(workers[3]),
    )
    assert sorted(key for part in claimed for key in part) == sorted(ids)
    rows = SubtaskRecord.objects.values_list("id", "worker_id", "claims", "status")
    holders = {key: worker for worker, part in zip(workers, claimed, strict=True) for key in part}
    assert set(rows) == {(key, holders[key], 1, "RUNNING") for key in ids}


def test_a_stale_worker_and_the_one_that_took_over() -> None:
    """A worker that was declared dead records at the same moment as the one that has its work."""
    store = get_store()
    for taskset in flow.make_sets(store, 20, 2, callbacks=[Role.ON_FINISH]):
        dead = flow.new_worker(store)
        stale = flow.claim_members(store, dead, taskset)
        mark_lost(store, [dead])
        assert rescue(store) == 2
        living = flow.new_worker(store)
        held = flow.claim_members(store, living, taskset)
        late, mine = together(
            partial(flow.record_all, store, dead, stale, "FAILED"),
            partial(flow.record_all, store, living, held),
        )
        assert (len(late.written), len(late.late)) == (0, 2)
        assert (len(mine.written), len(mine.late)) == (2, 0)
        assert flow.counts_of(taskset) == (2, 0, 2, 0, 0)
        assert flow.callbacks_of(taskset) == {"ON_FINISH": "READY"}


def test_a_rescue_and_a_late_record() -> None:
    """A result that arrives while its subtask is being rescued is recorded, or it is late."""
    store = get_store()
    for taskset in flow.make_sets(store, 20, 4, callbacks=[Role.ON_FINISH]):
        worker = flow.new_worker(store)
        held = flow.claim_members(store, worker, taskset)
        mark_lost(store, [worker])

        def end(worker: uuid.UUID = worker, held: list[Claimed] = held) -> list[Recorded]:
            return [flow.record_all(store, worker, [one]) for one in held]

        recorded, rescued = together(end, lambda: rescue(store))
        written = sum(len(one.written) for one in recorded)
        assert written + sum(len(one.late) for one in recorded) == 4
        assert written + rescued == 4
        assert flow.counts_of(taskset) == (4, 4 - written, written, 0, 0)
        living = flow.new_worker(store)
        again = flow.claim_members(store, living, taskset)
        assert len(flow.record_all(store, living, again).written) == rescued
        assert flow.callbacks_of(taskset) == {"ON_FINISH": "READY"}


def test_who_is_known_to_be_dead_is_rescued_before_others_are_told() -> None:
    """Those others would not know of the suspect."""
    store = get_store()
    worker = flow.new_worker(store)
    suspect, _, overdue = ids = flow.enqueue(store, 3)
    store.claim_ids(worker, ids)
    assert rescue(store) == 0
    assert rescue(store, [suspect], [overdue], "was killed", dead=worker) == 3
    assert flow.statuses_of(ids) == ["READY", "READY", "FAILED"]
    assert [flow.fetch(key).crashes for key in ids] == [1, 0, 0]
    assert flow.fetch(overdue).reason == "time limit exceeded"


def test_two_rescues_at_once() -> None:
    store = get_store()
    for taskset in flow.make_sets(store, 10, 5, callbacks=[Role.ON_FAILURE]):
        worker = flow.new_worker(store)
        ids = [claimed.id for claimed in flow.claim_members(store, worker, taskset)]
        mark_lost(store, [worker])
        SubtaskRecord.objects.filter(id__in=ids[:3]).update(crashes=100)
        together(*[partial(rescue, store, crashed=ids, cause="signal 9")] * 2)
        assert flow.counts_of(taskset) == (5, 2, 0, 3, 0)
        assert flow.statuses_of(ids) == [*["FAILED"] * 3, *["READY"] * 2]
        assert set(SubtaskRecord.objects.filter(id__in=ids[3:]).values_list("crashes")) == {(1,)}


def test_a_commit_that_nobody_acknowledged() -> None:
    """The same outcomes recorded twice at once, as after a lost connection: counted once."""
    store = get_store()
    for taskset in flow.make_sets(store, 20, 3, callbacks=[Role.ON_SUCCESS]):
        worker = flow.new_worker(store)
        held = flow.claim_members(store, worker, taskset)
        one, two = together(*[partial(flow.record_all, store, worker, held)] * 2)
        assert len(one.written) == len(two.written) == 3
        assert len(one.settled.finished) + len(two.settled.finished) == 1
        assert flow.counts_of(taskset) == (3, 0, 3, 0, 0)
        assert flow.callbacks_of(taskset) == {"ON_SUCCESS": "READY"}


def test_a_revocation_and_a_claim() -> None:
    """Each subtask is revoked, or its worker is asked to stop."""
    store = get_store()
    worker = flow.new_worker(store)
    for _ in range(20):
        ids = flow.enqueue(store, 10)
        reached, claimed = together(
            partial(revoke_subtasks, ids), lambda: store.claim(worker, [], 10)
        )
        assert reached == 10
        flagged = {held.id for held in store.flagged(worker)}
        assert flagged == {one.id for one in claimed}
        rest = [key for key in ids if key not in flagged]
        assert set(flow.statuses_of(rest)) <= {"REVOKED"}
        record(store, worker, [flow.outcome(one) for one in claimed])


def test_a_revocation_of_a_set_and_all_that_goes_on_in_it() -> None:
    """Claims, results, retries and a revocation at once: all is counted, the callback goes out."""
    store = get_store()
    for taskset in flow.make_sets(store, 20, 12, callbacks=flow.CALLBACKS):
        worker = flow.new_worker(store)
        held = flow.claim_members(store, worker, taskset)
        back, ended = held[:4], held[4:8]
        flow.record_all(store, worker, back, "READY")

        def work(worker: uuid.UUID = worker, taskset: TaskSetRecord = taskset) -> list[Claimed]:
            return flow.claim_members(store, worker, taskset)

        recorded, rest, _, _ = together(
            partial(flow.record_all, store, worker, ended),
            partial(flow.record_all, store, worker, held[8:10], "SCHEDULED"),
            partial(revoke_set, taskset.id),
            partial(revoke_subtasks, [one.id for one in held[10:]]),
        )
        assert len(recorded.written) == 4
        assert len(rest.written) == 2
        assert {held.id for held in store.flagged(worker)} == {one.id for one in held[10:]}
        flow.record_all(store, worker, held[10:], "REVOKED")
        # A retry that was committed just before the mark is revoked by the sweep.
        revoke_set(taskset.id)
        taskset.refresh_from_db()
        assert (taskset.status, taskset.successful, taskset.revoked) == ("REVOKED", 4, 8)
        assert flow.callbacks_of(taskset) == {
            "ON_SUCCESS": "REVOKED", "ON_FAILURE": "READY", "ON_FINISH": "WAITING",
        }  # fmt: skip
    flow.assert_counts_add_up()
