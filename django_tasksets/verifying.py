"""Compares the counts on sets with their members, and repairs what differs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from .completion import locked_state
from .models import TaskSetRecord
from .statuses import TaskSetStatus
from .store.contract import Store
from .sweeping import counted_members, write_counts


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A set whose counts are not those of its members."""

    taskset_id: uuid.UUID
    stored: dict[str, int]
    counted: dict[str, int]

    def __str__(self) -> str:
        return f"{self.taskset_id}: stored {self.stored}, counted {self.counted}"


def discrepancies(store: Store, ids: Sequence[uuid.UUID] = ()) -> Iterator[Discrepancy]:
    """The sets, among `ids` or all, that are counted wrong; each looked at under its lock."""
    sets = TaskSetRecord.objects.using(store.alias).exclude(status=TaskSetStatus.SAVED)
    sets = sets.filter(discarded_at=None)
    if ids:
        sets = sets.filter(id__in=ids)
    for key in list(sets.order_by("id").values_list("id", flat=True)):
        found = store.run(partial(compare, store, key))
        if found is not None:
            yield found


def compare(store: Store, taskset_id: uuid.UUID) -> Discrepancy | None:
    """Lock the set, then count its members in a fresh statement: nobody can end one in between.

    A step of a transaction. None if the counts agree, or the set is gone or going.
    """
    state = locked_state(store, taskset_id)
    if state is None or state.discarded_at is not None:
        return None
    counted = counted_members(store, taskset_id)
    sets = TaskSetRecord.objects.using(store.alias).filter(id=taskset_id)
    stored = dict(sets.values(*counted).get())
    return None if stored == counted else Discrepancy(taskset_id, stored, counted)


def repair(store: Store, taskset_id: uuid.UUID) -> bool:
    """Write the counted numbers down; whether any was wrong. The sweep finishes the set if due."""

    def work() -> bool:
        found = compare(store, taskset_id)
        if found is not None:
            sets = TaskSetRecord.objects.using(store.alias).filter(id=taskset_id)
            write_counts(sets, found.counted)
        return found is not None

    return store.run(work)
