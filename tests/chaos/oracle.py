"""Whether everything happened that was promised, by what rows and an independent ledger say.

To be asked once all has come to rest, of a database that held nothing before. Nothing here knows
how workers work.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django_tasksets.models import SubtaskRecord, TaskSetRecord, WorkerRecord
from django_tasksets.statuses import Role, SubtaskStatus, TaskSetStatus
from django_tasksets.store import get_store
from django_tasksets.sweeping import sweep
from django_tasksets.verifying import discrepancies
from tests.chaos.tasks import RETURNS, collect
from tests.workers.harness import Ledger

OK = SubtaskStatus.SUCCESSFUL


@dataclass(frozen=True)
class Account:
    """What was found."""

    sets: int
    members: int
    callbacks: int
    """Those that were released: each of them once."""
    again: int
    """Executions that were begun of what had been begun before."""


def check(ledger: Ledger, *, repairs: bool = False, deletions: bool = False) -> Account:
    """Nothing is unfinished, lost, doubled, out of order or miscounted.

    `repairs`: a sweep may find something to do, because a test had its hands in the rows.
    `deletions`: what was executed may have been deleted since.
    """
    assert not TaskSetRecord.objects.running().exists()
    assert not SubtaskRecord.objects.unfinished().exists()
    members, callbacks = _check_members(), _callbacks()
    released = sum(
        _check_set(row, members[row.id], callbacks[row.id])
        for row in TaskSetRecord.objects.iterator()
    )
    again = _check_ledger(ledger, deletions)
    assert list(discrepancies(get_store())) == []
    repaired = sweep(get_store())
    assert repairs or (repaired == 0 and not _repairs(ledger))
    assert not WorkerRecord.objects.filter(lost_at=None).exists()
    return Account(len(members), sum(map(len, members.values())), released, again)


def _check_members() -> dict[Any, list[SubtaskRecord]]:
    """Each has the result that its arguments foretell; all of them by set, in their order."""
    members: dict[Any, list[SubtaskRecord]] = {
        key: [] for key in TaskSetRecord.objects.values_list("id", flat=True)
    }
    rows = SubtaskRecord.objects.members().order_by("taskset", "position")
    for row in rows.iterator():
        _check_value(row)
        members[row.taskset_id].append(row)
    for rows_of_set in members.values():
        assert [row.position for row in rows_of_set] == list(range(len(rows_of_set)))
    return members


def _check_value(row: SubtaskRecord) -> None:
    assert row.attempts <= row.claims
    if row.status == OK and row.task_name in RETURNS:
        first, *_ = row.get_args()
        assert row.get_return_value() == RETURNS[row.task_name](first), row.id


def _callbacks() -> dict[Any, list[SubtaskRecord]]:
    callbacks: dict[Any, list[SubtaskRecord]] = defaultdict(list)
    for row in SubtaskRecord.objects.callbacks().iterator():
        callbacks[row.taskset_id].append(row)
    return callbacks


def _check_set(
    row: TaskSetRecord, members: Sequence[SubtaskRecord], callbacks: Sequence[SubtaskRecord]
) -> int:
    """It is counted right, ended as its members did, and each generation released one callback of
    on_success and on_failure, once, after the last member's end; how many were released."""
    statuses = Counter(member.status for member in members)
    failed, revoked = statuses[SubtaskStatus.FAILED], statuses[SubtaskStatus.REVOKED]
    counts = (row.total, row.remaining, row.successful, row.failed, row.revoked)
    assert counts == (len(members), 0, statuses[OK], failed, revoked), row.id
    # What was to be added to a set that was revoked while it was open is missing.
    is_cut_short = row.revoke_requested_at is not None and (
        row.sealed_at == row.revoke_requested_at
    )
    expected = TaskSetStatus.SUCCESSFUL
    if failed or revoked or is_cut_short:
        expected = TaskSetStatus.FAILED if failed else TaskSetStatus.REVOKED
    assert row.status == expected, row.id
    by_role = {(callback.generation, callback.role): callback for callback in callbacks}
    assert len(by_role) == len(callbacks), row.id
    last = {
        role: one for (generation, role), one in by_role.items() if generation == row.generation
    }
    _check_callbacks(last, members, succeeded=expected == TaskSetStatus.SUCCESSFUL)
    return sum(callback.status == OK for callback in callbacks)


def _check_callbacks(
    callbacks: dict[str, SubtaskRecord], members: Sequence[SubtaskRecord], *, succeeded: bool
) -> None:
    """Those of the last generation."""
    other = Role.ON_FAILURE if succeeded else Role.ON_SUCCESS
    ends = [member.finished_at for member in members if member.finished_at is not None]
    for role, callback in callbacks.items():
        if role == other:
            assert (callback.status, callback.claims) == (SubtaskStatus.REVOKED, 0), callback.id
            continue
        assert callback.status == OK, (callback.id, callback.status, callback.reason)
        assert callback.started_at is not None
        assert not ends or callback.started_at >= max(ends), callback.id
        if callback.task_name == collect.name:
            results = [member.get_return_value() for member in members]
            assert callback.get_return_value() == results, callback.id
    first = callbacks.get(Role.ON_SUCCESS if succeeded else Role.ON_FAILURE)
    final = callbacks.get(Role.ON_FINISH)
    if first is not None and final is not None:
        assert final.started_at is not None
        assert first.finished_at is not None
        assert final.started_at >= first.finished_at


def _check_ledger(ledger: Ledger, deletions: bool) -> int:
    """What is recorded was executed, to its end, and nothing was that is not there; how often one
    was begun that had been begun before."""
    starts, ends = _by_id(ledger.lines("begin")), _by_id(ledger.lines("end"))
    rows = SubtaskRecord.objects.values_list("id", "status", "claims")
    claims: dict[str, int] = {}
    for key, status, number in rows.iterator():
        claims[str(key)] = number
        if status == OK and str(key) in starts:
            assert ends[str(key)] >= 1, key
    assert deletions or starts.keys() <= claims.keys(), "executed what is not there"
    known = starts.keys() & claims.keys()
    assert all(ends[key] <= starts[key] <= claims[key] for key in known)
    return sum(starts.values()) - len(starts)


def _repairs(ledger: Ledger) -> list[str]:
    """What the sweeps of the workers had to repair, by their logs."""
    logs = [file.read_text() for file in ledger.directory.glob("worker-*.log")]
    return [line for log in logs for line in log.splitlines() if "taskset repaired" in line]


def _by_id(lines: Iterable[list[str]]) -> Counter[str]:
    return Counter(words[-1] for words in lines)
