"""One set so large that all workers have to do with its row alone."""

from __future__ import annotations

import time
from typing import Final

import pytest

from django_tasksets import TaskSet
from django_tasksets.models import TaskSetRecord
from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.tasks import square, squared, sum_up, tell
from tests.workers.harness import Ledger, Start

pytestmark = pytest.mark.django_db(transaction=True)

MEMBERS: Final = scale.size(3_000, 100_000)
SUPERVISORS: Final = scale.size(2, 4)
PROCESSES: Final = scale.size(2, 4)


@pytest.mark.experiment("One set of 100,000 subtasks that do nothing, on all processes at once")
@pytest.mark.timeout(300 + MEMBERS // 50)
def test_one_row_is_counted_by_all(start: Start, ledger: Ledger, report: Report) -> None:
    calls = (square.subtask((number, 0.0)) for number in range(MEMBERS))
    result = TaskSet(
        calls, on_success=sum_up.subtask(), on_failure=tell.subtask(), on_finish=tell.subtask()
    ).apply_async()
    began = time.monotonic()
    workers = [start("--processes", str(PROCESSES), "-v0") for _ in range(SUPERVISORS)]
    load.wait_for_the_end(240 + MEMBERS / 50)
    whole = time.monotonic() - began
    load.stop_all(*workers)

    found = oracle.check(ledger)
    assert (found.members, found.callbacks, found.again) == (MEMBERS, 2, 0)
    assert result.callbacks["on_success"].get() == sum(map(squared, range(MEMBERS)))
    # Nothing is even written there but errors.
    assert [worker.log for worker in workers] == [""] * SUPERVISORS
    row = TaskSetRecord.objects.get()
    assert row.started_at is not None
    assert row.finished_at is not None
    took = (row.finished_at - row.started_at).total_seconds()
    report(
        f"{MEMBERS:,} on {SUPERVISORS * PROCESSES} processes: {MEMBERS / took:,.0f} a second, "
        f"{whole:.0f} s with their start and the callbacks, each called once; no error"
    )
