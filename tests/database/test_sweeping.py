"""What the sweep repairs, and what it ends; whom a rescue takes for dead."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from django_tasksets.ids import new_id
from django_tasksets.maintenance import beat, mark_lost, mark_silent_lost, rescue, sweep
from django_tasksets.models import SubtaskRecord, TaskSetRecord, WorkerRecord
from django_tasksets.signals import taskset_finished
from django_tasksets.statuses import Role, TaskSetStatus
from django_tasksets.store import get_store
from django_tasksets.worker.board import Board
from django_tasksets.worker.options import WorkerOptions
from django_tasksets.worker.pulse import BIRTH, Pulse
from tests import flow

pytestmark = pytest.mark.django_db


@pytest.fixture
def finished() -> Iterator[list[Any]]:
    """The ids that taskset_finished is sent with."""
    ids: list[Any] = []

    def note(sender: Any, *, taskset_id: Any, **_: Any) -> None:
        ids.append(taskset_id)

    taskset_finished.connect(note)
    yield ids
    taskset_finished.disconnect(note)


# Repairs


def test_wrong_counts_are_set_right() -> None:
    store = get_store()
    taskset = flow.make_set(store, 2, total=5, remaining=4, revoked=1)
    assert sweep(store) == 1
    assert flow.counts_of(taskset) == (2, 2, 0, 0, 0)
    assert sweep(store) == 0


def test_what_is_over_is_finished() -> None:
    store = get_store()
    taskset = flow.make_set(store, 0, callbacks=[Role.ON_SUCCESS])
    assert sweep(store) == 1
    taskset.refresh_from_db()
    assert taskset.status == "SUCCESSFUL"
    assert flow.callbacks_of(taskset) == {"ON_SUCCESS": "READY"}
    assert sweep(store) == 0


def test_what_was_not_released_is() -> None:
    store = get_store()
    taskset = flow.make_set(
        store,
        0,
        callbacks=[Role.ON_SUCCESS, Role.ON_FINISH],
        status=TaskSetStatus.SUCCESSFUL,
        finished_at=store.now(),
    )
    assert sweep(store) == 1
    assert flow.callbacks_of(taskset) == {"ON_SUCCESS": "READY", "ON_FINISH": "WAITING"}
    assert sweep(store) == 0


# What a crash leaves


def test_what_was_not_acknowledged_is_sent_again_after_a_while(finished: list[Any]) -> None:
    store = get_store()
    now = store.now()
    late, fresh = (
        flow.make_set(store, 0, status=TaskSetStatus.SUCCESSFUL, finished_at=moment)
        for moment in (now - datetime.timedelta(minutes=1), now)
    )
    assert sweep(store) == 0
    assert finished == [late.id]
    assert sweep(store) == 0
    assert finished == [late.id]
    acknowledged = TaskSetRecord.objects.exclude(announced_at=None)
    assert list(acknowledged) == [late]
    assert fresh not in acknowledged


def test_a_revocation_that_was_cut_short_goes_on() -> None:
    store = get_store()
    taskset = flow.make_set(store, 3, callbacks=[Role.ON_FAILURE])
    TaskSetRecord.objects.update(revoke_requested_at=store.now(), revoke_reason="enough")
    assert sweep(store) == 0
    assert flow.counts_of(taskset) == (3, 0, 0, 0, 3)
    assert set(SubtaskRecord.objects.members().values_list("reason", flat=True)) == {"enough"}
    assert flow.callbacks_of(taskset) == {"ON_FAILURE": "READY"}


# The dead


def test_who_was_declared_dead_lives_no_more() -> None:
    store = get_store()
    living, dead = flow.new_worker(store), flow.new_worker(store)
    mark_lost(store, [dead])
    before = WorkerRecord.objects.get(id=dead).heartbeat_at
    assert beat(store, [living, dead]) == {living}
    assert WorkerRecord.objects.get(id=dead).heartbeat_at == before
    assert beat(store, [living]) == {living}


def test_who_is_not_confirmed_is_told_so_at_once() -> None:
    """Not only when most of the lease is over: others have its subtasks already."""
    store = get_store()
    dead, unborn = flow.new_worker(store), new_id()
    mark_lost(store, [dead])
    board, now = Board(places=2, slots=1), time.monotonic()
    board.confirm(0, now - BIRTH - 1)
    board.confirm(1, now)
    pulse = Pulse(store, WorkerOptions(alias="default", processes=2), board)
    pulse.workers = {dead: 0, unborn: 1}
    pulse.beat()
    assert (board.is_known(0), board.is_known(1)) == (False, True)


@override_settings(TASKSETS={"LEASE": 60})
def test_who_is_silent_for_longer_than_the_lease_is_declared_dead() -> None:
    store = get_store()
    silent, living = flow.new_worker(store), flow.new_worker(store)
    ids = flow.enqueue(store, 2)
    for worker, key, seconds in zip((silent, living), ids, (61, 50), strict=True):
        store.claim_ids(worker, [key])
        moment = store.now() - datetime.timedelta(seconds=seconds)
        WorkerRecord.objects.filter(id=worker).update(heartbeat_at=moment)
    assert mark_silent_lost(store) == 1
    assert rescue(store) == 1
    assert flow.statuses_of(ids) == ["READY", "RUNNING"]


@override_settings(TASKSETS={"MAX_CRASHES": 1})
def test_only_what_was_alone_or_a_suspect_is_blamed_for_a_crash() -> None:
    store = get_store()
    for known, crashed, statuses in (
        (0, 2, ["READY", "READY"]),
        (0, 1, ["FAILED", "READY"]),
        (1, 2, ["FAILED", "FAILED"]),
    ):
        worker = flow.new_worker(store)
        ids = flow.enqueue(store, 2)
        SubtaskRecord.objects.filter(id__in=ids).update(crashes=known)
        store.claim_ids(worker, ids)
        assert rescue(store, ids[:crashed], cause="was killed", dead=worker) == 2
        assert flow.statuses_of(ids) == statuses
        assert [flow.fetch(key).crashes - known for key in ids] == [1, crashed - 1]
