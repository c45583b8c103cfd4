"""Sets whose producers are killed while they enqueue them: each is there as a whole, or not."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Final

import pytest

from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.statuses import TaskSetStatus
from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.producers import ADDED, ADDITIONS, MEMBERS
from tests.workers.harness import Ledger, Start, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

TRIES: Final = scale.size(10, 500)
SETTINGS: Final = {"OPEN_TIMEOUT": 3, "SWEEP_INTERVAL": 1}
NEVER: Final = ("rollback", "inner")


@pytest.mark.experiment("Producers are killed while they enqueue, fill, roll back")
@pytest.mark.timeout(300 + 5 * TRIES)
def test_a_set_is_there_as_a_whole_or_not_at_all(
    start: Start, ledger: Ledger, report: Report, child_environment: dict[str, str]
) -> None:
    workers = [start("--processes", "1", "-v0", settings=SETTINGS) for _ in range(2)]
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.chaos.producers", str(TRIES), str(scale.seed)]
    subprocess.run(command, env=child_environment, check=True)
    took = time.monotonic() - began
    running = TaskSetRecord.objects.running()
    wait_until(lambda: not running.exists(), "the end of all sets", 120 + TRIES)
    load.wait_for_the_end(60)
    load.stop_all(*workers)

    found = oracle.check(ledger)
    assert found.callbacks == 2 * found.sets
    abandoned = check_sets(ledger)
    asked, committed = len(ledger.lines("asked")), len(ledger.lines("committed"))
    assert committed > 0
    report(
        f"{TRIES} producers killed in {took:.0f} s, which had begun to enqueue {asked:,} sets and "
        f"knew of {committed:,} that it was done: {found.sets:,} are there, each whole; "
        f"{abandoned} left open, ended by the sweep"
    )


def check_sets(ledger: Ledger) -> int:
    """What was acknowledged is there; what was rolled back is not; how many were abandoned."""
    rows = {row.name: row for row in TaskSetRecord.objects.iterator()}
    ways = {key: way for _, way, key in ledger.lines("asked")}
    committed = {key for _, _, key in ledger.lines("committed")}
    expected = {key for key in committed if ways[key] not in NEVER}
    assert expected <= rows.keys() <= ways.keys()
    # Besides these, one may be there for each producer: that at which it was killed.
    assert len(rows) - len(expected) <= TRIES
    abandoned = 0
    for key, row in rows.items():
        way = ways[key]
        assert way not in NEVER, key
        if way != "opened":
            assert (row.total, row.status) == (MEMBERS, TaskSetStatus.SUCCESSFUL), key
        elif row.status == TaskSetStatus.SUCCESSFUL:
            assert row.total == ADDED * ADDITIONS, key
        else:
            assert (row.status, row.total % ADDED, key in committed) == ("REVOKED", 0, False)
            assert row.revoke_reason == "abandoned while open"
            abandoned += 1
    assert not SubtaskRecord.objects.filter(taskset=None).exists()
    return abandoned
