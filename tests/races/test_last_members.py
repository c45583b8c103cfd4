"""The last members of a set end at the same moment: exactly one of them finishes it."""

from __future__ import annotations

import multiprocessing
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
    sets, together_at_once = 2_000, 10
    store = get_store()
    made = sorted(one.id for one in flow.make_sets(store, sets, 2, callbacks=[Role.ON_SUCCESS]))
    members: dict[int, list[uuid.UUID]] = {0: [], 1: []}
    rows = SubtaskRecord.objects.filter(role=Role.MEMBER).order_by("taskset_id", "position")
    for position, key in rows.values_list("position", "id"):
        members[position or 0].append(key)
    for name, value in child_environment.items():
        monkeypatch.setenv(name, value)
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.SimpleQueue()
    workers = [flow.new_worker(store) for _ in range(2)]
    processes = [
        context.Process(
            target=recorders.record_in_rounds,
            args=(workers[n], members[n], together_at_once, barrier, answers),
        )
        for n in (0, 1)
    ]
    began = time.monotonic()
    for process in processes:
        process.start()
    # Read before they are joined: a process that has put much down does not end before.
    reported = [answers.get() for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert time.monotonic() - began < 60
    finished = [key for part in reported for key in part["finished"]]
    released = [key for part in reported for key in part["released"]]
    assert sorted(finished) == sorted(released) == made
    # It was a race: each of the two was sometimes the last one.
    assert all(part["finished"] for part in reported)
    ended = TaskSetRecord.objects.filter(status="SUCCESSFUL", remaining=0, successful=2)
    assert ended.count() == sets
    callbacks = SubtaskRecord.objects.filter(role=Role.ON_SUCCESS, status="READY")
    assert callbacks.count() == sets
    flow.assert_counts_add_up()
    # And each callback is claimed, and recorded, once.
    executed: list[uuid.UUID] = []
    while claimed := store.claim(workers[0], ["callbacks"], 500):
        executed += [o.claimed.id for o in flow.record_all(store, workers[0], claimed).written]
    assert len(executed) == len(set(executed)) == sets
