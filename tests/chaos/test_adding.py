"""Sets that grow while they end: from within, from outside, and while they are revoked."""

from __future__ import annotations

import itertools
import time
import uuid
from functools import partial
from typing import Any, Final

import pytest

from django_tasksets import TaskSet, TaskSetResult, TaskSetSealed
from django_tasksets.enqueueing import seal
from django_tasksets.models import TaskSetRecord
from django_tasksets.statuses import TaskSetStatus
from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.tasks import collect, square, square_and_grow, tell
from tests.concurrency import together
from tests.workers.harness import Ledger, Start

pytestmark = pytest.mark.django_db(transaction=True)

SETS: Final = scale.size(100, 2000)
DEPTH: Final = 4
GROWERS: Final = 2
SOON: Final = 0.01


def new(calls: list[Any]) -> TaskSetResult:
    """An open set with a callback for every end."""
    return (
        TaskSet(
            calls,
            on_success=collect.subtask(),
            on_failure=tell.subtask(),
            on_finish=tell.subtask(),
        )
        .open()
        .__enter__()
    )


def grow() -> tuple[str, int]:
    """A set whose members add to it; what it is, and how many there will be."""
    calls = [square_and_grow.subtask((number, DEPTH)) for number in range(GROWERS)]
    return load.apply(calls).id, GROWERS * (1 + 2 * DEPTH)


def add_until_refused(result: TaskSetResult) -> int:
    """Add members one by one; how many until the set took no more."""
    for count in itertools.count():
        try:
            result.add(square.subtask((count, 0.0)))
        except TaskSetSealed:
            return count
    raise AssertionError


def add_while_sealed() -> tuple[str, int]:
    """Somebody adds to a set whose members end, while somebody else seals it."""
    result = new([square.subtask((number, 0.0)) for number in range(2)])

    def seal_soon() -> None:
        time.sleep(chance.uniform(0, SOON))
        seal(uuid.UUID(result.id))

    added, _ = together(partial(add_until_refused, result), seal_soon)
    return result.id, 2 + added


def add_while_revoked() -> tuple[str, int]:
    """The same, while it is revoked. One member is never due."""
    never = square.subtask((0, 0.0), options={"countdown": 86400})
    result = new([square.subtask((1, 0.0)), never])

    def revoke_soon() -> None:
        time.sleep(chance.uniform(0, SOON))
        result.revoke()

    added, _ = together(partial(add_until_refused, result), revoke_soon)
    return result.id, 2 + added


chance: Final = scale.generator("adding")


@pytest.mark.experiment("Subtasks are added while the last ones end, while sealed, while revoked")
@pytest.mark.timeout(300 + SETS)
def test_whatever_is_added_in_time_belongs_to_the_set(
    start: Start, ledger: Ledger, report: Report
) -> None:
    workers = [start("--processes", "2", "-v0") for _ in range(2)]
    ways = (grow, add_while_sealed, add_while_revoked)
    expected = dict(way() for way, _ in zip(itertools.cycle(ways), range(SETS), strict=False))
    load.wait_for_the_end(240 + SETS / 2)
    load.stop_all(*workers)

    found = oracle.check(ledger)
    rows = TaskSetRecord.objects.values_list("id", "total")
    assert {str(key): total for key, total in rows} == expected
    assert (found.sets, found.callbacks) == (SETS, 2 * SETS)
    revoked = TaskSetRecord.objects.filter(status=TaskSetStatus.REVOKED).count()
    assert revoked == SETS // len(ways)
    for key in list(expected)[:10]:
        with pytest.raises(TaskSetSealed):
            TaskSetResult(key).add(square.subtask((0, 0.0)))
    given = GROWERS * (SETS - 2 * revoked) + 2 * 2 * revoked
    report(
        f"{SETS:,} sets, {revoked:,} of them revoked meanwhile: {found.members:,} members, "
        f"{found.members - given:,} of them added meanwhile; "
        "each counted, each set called back once, after the last"
    )
