"""The last members of a set end at the same moment: exactly one of them finishes it."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.statuses import Role
from django_tasksets.store import get_store
from django_tasksets.store.contract import Claimed
from tests import flow
from tests.concurrency import together
from tests.races import recorders

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS = 40


def test_in_two_threads() -> None:
    store = get_store()
    workers = [flow.new_worker(store) for _ in range(2)]
    for taskset in flow.make_sets(store, ROUNDS, 2, callbacks=[Role.ON_SUCCESS]):
        members = list(SubtaskRecord.objects.filter(taskset=taskset, role=Role.MEMBER))
        held = [
            store.claim_ids(worker, [member.id])[0]
            for worker, member in zip(workers, members, strict=True)
        ]

        def end(index: int, held: list[Claimed] = held) -> Any:
            return flow.record_all(store, workers[index], [held[index]])

        recorded = together(lambda: end(0), lambda: end(1))
        finished = [state.id for one in recorded for state in one.settled.finished]
        released = [callback.taskset_id for one in recorded for callback in one.settled.released]
        assert finished == released == [taskset.id]
        assert flow.counts_of(taskset) == (2, 0, 2, 0, 0)
    assert set(TaskSetRecord.objects.values_list("status", flat=True)) == {"SUCCESSFUL"}
    callbacks = SubtaskRecord.objects.filter(role=Role.ON_SUCCESS)
    assert set(callbacks.values_list("status", flat=True)) == {"READY"}


def test_of_many_sets_in_two_processes(
    child_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 sets of two members, which end in two processes: 2,000 callbacks, each once."""
    sets = 2_000
    store = get_store()
    made = recorders.make_pairs(store, sets)
    for name, value in child_environment.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    recorders.race(store, made, 1)
    assert time.monotonic() - began < 60
    ended = TaskSetRecord.objects.filter(status="SUCCESSFUL", remaining=0, successful=2)
    assert ended.count() == sets
    callbacks = SubtaskRecord.objects.filter(role=Role.ON_SUCCESS, status="READY")
    assert callbacks.count() == sets
    flow.assert_counts_add_up()
    # And each callback is claimed, and recorded, once.
    worker = flow.new_worker(store)
    executed: list[uuid.UUID] = []
    while claimed := store.claim(worker, ["callbacks"], 500):
        executed += [o.claimed.id for o in flow.record_all(store, worker, claimed).written]
    assert len(executed) == len(set(executed)) == sets
