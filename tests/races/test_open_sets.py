"""Sets that are added to, sealed and finished at the same moment."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

import pytest

from django_tasksets import TaskSetSealed
from django_tasksets.calls import Call
from django_tasksets.context import Request, current_request
from django_tasksets.control import revoke_set
from django_tasksets.enqueueing import add, seal
from django_tasksets.maintenance import sweep
from django_tasksets.models import TaskSetRecord
from django_tasksets.statuses import Role
from django_tasksets.store import get_store
from tests import flow
from tests.concurrency import together

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS = 25
NOOP: Call = {"task": "tests.tasks.noop", "args": [], "kwargs": {}, "options": {}}


def try_to_add(taskset: TaskSetRecord, member: uuid.UUID | None = None) -> list[uuid.UUID] | None:
    """Add a member, from within one if that is given; None if the set takes no more."""
    if member is not None:
        current_request.set(Request(subtask_id=member, taskset_id=taskset.id))
    try:
        return add(taskset.id, [NOOP])
    except TaskSetSealed:
        return None


def finish_off(taskset: TaskSetRecord) -> None:
    """Execute what is left; then the set is finished, once."""
    store = get_store()
    worker = flow.new_worker(store)
    flow.record_all(store, worker, flow.claim_members(store, worker, taskset))
    taskset.refresh_from_db()
    assert taskset.status == "SUCCESSFUL"
    assert flow.callbacks_of(taskset) == {"ON_SUCCESS": "READY"}
    flow.assert_counts_add_up()


def test_adding_to_an_open_set_while_its_last_member_ends() -> None:
    """An open set does not finish, however the two meet."""
    store = get_store()
    for taskset in flow.make_sets(store, ROUNDS, 1, callbacks=[Role.ON_SUCCESS], sealed=False):
        worker = flow.new_worker(store)
        held = flow.claim_members(store, worker, taskset)
        added, recorded = together(
            partial(try_to_add, taskset),
            partial(flow.record_all, store, worker, held),
        )
        assert added
        assert not recorded.settled.finished
        assert flow.counts_of(taskset) == (2, 1, 1, 0, 0)
        seal(taskset.id)
        finish_off(taskset)


def test_a_member_adds_while_the_others_end() -> None:
    """It is unfinished itself, so it is never too late."""
    store = get_store()
    for taskset in flow.make_sets(store, ROUNDS, 2, callbacks=[Role.ON_SUCCESS]):
        worker = flow.new_worker(store)
        one, other = flow.claim_members(store, worker, taskset)
        added, recorded = together(
            partial(try_to_add, taskset, one.id),
            partial(flow.record_all, store, worker, [other]),
        )
        assert added
        assert not recorded.settled.finished
        flow.record_all(store, worker, [one])
        assert flow.counts_of(taskset) == (3, 1, 2, 0, 0)
        finish_off(taskset)


def test_a_member_that_somebody_else_has_ended_adds() -> None:
    """A zombie's addition comes before the end of the set, and is counted, or is refused."""
    store = get_store()
    for taskset in flow.make_sets(store, ROUNDS, 1, callbacks=[Role.ON_SUCCESS]):
        worker = flow.new_worker(store)
        held = flow.claim_members(store, worker, taskset)
        added, recorded = together(
            partial(try_to_add, taskset, held[0].id),
            partial(flow.record_all, store, worker, held),
        )
        assert bool(added) != bool(recorded.settled.finished)
        finish_off(taskset)


def test_sealing_while_the_last_member_ends() -> None:
    """One of the two finishes the set."""
    store = get_store()
    for taskset in flow.make_sets(store, ROUNDS, 1, callbacks=[Role.ON_SUCCESS], sealed=False):
        worker = flow.new_worker(store)
        held = flow.claim_members(store, worker, taskset)
        together(
            partial(seal, taskset.id),
            partial(flow.record_all, store, worker, held),
            partial(seal, taskset.id),
        )
        finish_off(taskset)


def test_sealing_while_somebody_adds() -> None:
    store = get_store()
    for taskset in flow.make_sets(store, ROUNDS, 0, callbacks=[Role.ON_SUCCESS], sealed=False):
        added: list[Any] = together(partial(seal, taskset.id), *[partial(try_to_add, taskset)] * 3)[
            1:
        ]
        count = sum(1 for ids in added if ids)
        taskset.refresh_from_db()
        assert taskset.total == count
        assert taskset.is_finished == (count == 0)
        finish_off(taskset)


def test_revoking_while_somebody_adds() -> None:
    """What was added before is revoked, too; nothing is added after."""
    store = get_store()
    for taskset in flow.make_sets(store, ROUNDS, 1, callbacks=[Role.ON_FAILURE], sealed=False):
        together(partial(revoke_set, taskset.id), *[partial(try_to_add, taskset)] * 3)
        taskset.refresh_from_db()
        assert (taskset.status, taskset.remaining) == ("REVOKED", 0)
        assert flow.callbacks_of(taskset) == {"ON_FAILURE": "READY"}
        assert try_to_add(taskset) is None
    flow.assert_counts_add_up()


def test_adders_find_places_of_their_own() -> None:
    store = get_store()
    taskset = flow.make_set(store, 0, sealed=False)

    def add_many() -> None:
        for count in range(1, 8):
            add(taskset.id, [NOOP] * count)

    together(*[add_many] * 3)
    positions = taskset.subtasks.order_by("position").values_list("position", flat=True)
    assert list(positions) == list(range(3 * 28))
    assert flow.counts_of(taskset) == (84, 84, 0, 0, 0)


def test_a_sweep_finds_nothing_while_sets_run() -> None:
    """It counts by statements that see one moment: what is being recorded is no discrepancy."""
    store = get_store()
    worker = flow.new_worker(store)
    made = flow.make_sets(store, 60, 5, callbacks=flow.CALLBACKS)
    held = flow.claim_members(store, worker, *made)
    half = len(held) // 2

    def work(part: list[Any]) -> None:
        for start in range(0, len(part), 7):
            flow.record_all(store, worker, part[start : start + 7])

    def add_and_seal() -> None:
        for one in flow.make_sets(store, 20, 0, callbacks=flow.CALLBACKS, sealed=False):
            add(one.id, [NOOP])
            seal(one.id)
            revoke_set(one.id)

    def sweep_often() -> int:
        return sum(sweep(store) for _ in range(15))

    repairs = together(
        lambda: work(held[:half]), lambda: work(held[half:]), add_and_seal, sweep_often
    )[-1]
    assert repairs == 0
    assert set(TaskSetRecord.objects.values_list("status", flat=True)) == {"SUCCESSFUL", "REVOKED"}
    assert set(flow.callbacks_of(made[0]).values()) == {"READY", "REVOKED", "WAITING"}
    flow.assert_counts_add_up()
