"""The last two members of many sets, recorded at the same moment by two processes."""

from __future__ import annotations

import multiprocessing
import random
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import django

if TYPE_CHECKING:
    from django_tasksets.store.contract import Store

AT_ONCE: Final = 10
"""So many members are recorded in one batch, and so many sets end by it."""


def make_pairs(store: Store, sets: int, callback: str = "tests.tasks.noop") -> list[uuid.UUID]:
    """So many sets of two members, with a callback that is this task; their ids, in order."""
    from django_tasksets.models import SubtaskRecord
    from django_tasksets.statuses import Role
    from tests import flow

    made = flow.make_sets(store, sets, 2, callbacks=[Role.ON_SUCCESS])
    SubtaskRecord.objects.callbacks().update(task_name=callback)
    return sorted(one.id for one in made)


def race(store: Store, made: Sequence[uuid.UUID], pairs: int) -> list[uuid.UUID]:
    """Have each set's two members recorded by two processes, at the same moment.

    Each finishes once, and releases its callback once. There are so many pairs of processes, each
    with its share of the sets. Returns the workers in whose names it was done.
    """
    from tests import flow

    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    workers: list[uuid.UUID] = []
    processes: list[Any] = []
    # Held until the end: a process that has been started holds its arguments no more.
    barriers = [context.Barrier(2) for _ in range(pairs)]
    for n, barrier in enumerate(barriers):
        for members in _members(made[n::pairs]):
            workers.append(flow.new_worker(store))
            arguments = (workers[-1], members, AT_ONCE, barrier, answers)
            processes.append(context.Process(target=record_in_rounds, args=arguments))
    for process in processes:
        process.start()
    # Read before they are joined: a process that has put much down does not end before.
    reported: list[Any] = []
    while len(reported) < len(processes):
        assert not any(process.exitcode for process in processes)
        if answers.empty():
            time.sleep(0.02)
        else:
            reported.append(answers.get())
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    finished = [key for part in reported for key in part["finished"]]
    released = [key for part in reported for key in part["released"]]
    assert sorted(finished) == sorted(released) == sorted(made)
    # It was a race: each of them was sometimes the last one.
    assert all(part["finished"] for part in reported)
    return workers


def _members(sets: Sequence[uuid.UUID]) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    """The first and the second members of the sets, in the order of the sets."""
    from django_tasksets.models import SubtaskRecord

    members: tuple[list[uuid.UUID], list[uuid.UUID]] = [], []
    for start in range(0, len(sets), 500):
        rows = SubtaskRecord.objects.members().filter(taskset_id__in=sets[start : start + 500])
        for position, key in rows.order_by("taskset_id").values_list("position", "id"):
            members[position or 0].append(key)
    return members


def record_in_rounds(
    worker_id: uuid.UUID, members: list[uuid.UUID], size: int, barrier: Any, answers: Any
) -> None:
    """In another process, which imports this by name before Django is set up: claim the members;
    then record so many of them at a time, each time together with the other process; tell which
    sets that finished, and which callbacks it released."""
    django.setup()
    from django_tasksets.store import get_store
    from django_tasksets.store.contract import batches
    from tests import flow

    store = get_store()
    store.dedicate()
    told: dict[str, list[uuid.UUID]] = {"finished": [], "released": []}
    for keys in batches(members, size):
        claimed = store.claim_ids(worker_id, keys)
        assert len(claimed) == len(keys)
        random.shuffle(claimed)
        barrier.wait(60)
        recorded = flow.record_all(store, worker_id, claimed)
        assert len(recorded.written) == len(keys)
        told["finished"] += [state.id for state in recorded.settled.finished]
        told["released"] += [callback.taskset_id for callback in recorded.settled.released]
    answers.put(told)
