"""Whether everything happened that was promised, by what rows and an independent ledger say.

To be asked once all has come to rest. Nothing here knows how workers work.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django_tasksets.models import SubtaskRecord, TaskSetRecord, WorkerRecord
from django_tasksets.statuses import Role, SubtaskStatus, TaskSetStatus
from django_tasksets.store import get_store
from django_tasksets.sweeping import sweep
from django_tasksets.verifying import discrepancies

Lines = Iterable[list[str]]


def check_sets(sets: Mapping[str, int], value_of: Callable[[int], Any]) -> None:
    """Each set (by its id, with its number of members) ended well, with one callback that was
    given what each member had to return, in their order, after all of them had finished."""
    rows = {str(row.id): row for row in TaskSetRecord.objects.filter(id__in=list(sets))}
    assert rows.keys() == sets.keys()
    for key, size in sets.items():
        row = rows[key]
        counts = (row.total, row.remaining, row.successful, row.failed, row.revoked)
        assert (row.status, counts) == (TaskSetStatus.SUCCESSFUL, (size, 0, size, 0, 0)), key
    last: dict[Any, Any] = defaultdict(lambda: None)
    members = SubtaskRecord.objects.members().order_by("taskset", "position")
    for member in members.iterator():
        assert member.status == SubtaskStatus.SUCCESSFUL, member.reason
        assert member.get_return_value() == value_of(member.position or 0)
        latest = last[member.taskset_id]
        last[member.taskset_id] = max(filter(None, (latest, member.finished_at)))
    callbacks = Counter[str]()
    for callback in SubtaskRecord.objects.callbacks().iterator():
        assert (callback.role, callback.status) == (Role.ON_SUCCESS, SubtaskStatus.SUCCESSFUL)
        size = sets[str(callback.taskset_id)]
        assert callback.get_return_value() == [value_of(index) for index in range(size)]
        assert callback.started_at is not None
        assert callback.started_at >= last[callback.taskset_id]
        callbacks[str(callback.taskset_id)] += 1
    assert callbacks == Counter(sets.keys())


def check_ledger(begun: Lines, ended: Lines) -> int:
    """What is recorded was executed: each subtask to its end, at least once; how often one was
    begun that had been begun before. A line is the subtask's id."""
    starts, ends = Counter(words[-1] for words in begun), Counter(words[-1] for words in ended)
    subtasks = SubtaskRecord.objects.filter(status=SubtaskStatus.SUCCESSFUL)
    recorded = {str(key) for key in subtasks.values_list("id", flat=True).iterator()}
    assert recorded == ends.keys()
    assert all(starts[key] >= ends[key] for key in ends)
    return sum(starts.values()) - len(starts)


def check_nothing_is_left() -> None:
    """Nothing is unfinished, nothing had to be repaired, every count is right."""
    assert not TaskSetRecord.objects.running().exists()
    assert not SubtaskRecord.objects.unfinished().exists()
    assert list(discrepancies(get_store())) == []
    assert sweep(get_store()) == 0
    assert not WorkerRecord.objects.filter(lost_at=None).exists()
