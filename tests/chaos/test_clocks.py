"""Workers whose clocks are wrong, each in a way of its own; the database's is right."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

from django_tasksets.models import SubtaskRecord
from django_tasksets.store import get_store
from tests import services
from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.tasks import LATER, square, square_later
from tests.workers.harness import Ledger, Start

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS: Final = scale.size(6.0, 120.0)
CLOCKS: Final = (600, -600, 31_536_000)
"""By how many seconds they are fast."""
# Much shorter than what the clocks are wrong by, and than the experiment.
SETTINGS: Final = {"LEASE": 3, "SWEEP_INTERVAL": 2}
ARGUMENTS: Final = ("--processes", "1", "-v0")
MEMBERS: Final = 20
DELAY: Final = 2.0
LATE: Final = datetime.timedelta(seconds=1)


@pytest.fixture
def library(tmp_path: Path) -> str:
    """What makes a program's clock wrong."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        absent = "there is no C compiler"
        if services.under_ci():
            pytest.fail(absent, pytrace=False)
        pytest.skip(absent)
    built = str(tmp_path / "clock.so")
    source = str(Path(__file__).with_name("clock.c"))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
    return built


@pytest.mark.experiment(
    "Clocks of workers are 10 minutes fast or slow, or a year fast", on=("postgresql", "mysql")
)
@pytest.mark.timeout(120 + 2 * SECONDS)
def test_only_the_clock_of_the_database_counts(
    start: Start, ledger: Ledger, library: str, report: Report
) -> None:
    workers = [
        start(*ARGUMENTS, settings=SETTINGS, LD_PRELOAD=library, CLOCK_OFFSET=f"{offset}")
        for offset in (*CLOCKS, 0)
    ]
    for worker in workers:
        worker.wait_for_processes()
    timed = 0
    with load.Stream(MEMBERS, longest=0.1, pause=0.15) as stream:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            apply_for_later(timed)
            timed += 1
            time.sleep(0.2)
    load.wait_for_the_end(60)

    load.stop_all(*workers)
    found = oracle.check(ledger)
    assert all(result.successful() for result in stream.results)
    executed, rows = len(ledger.lines("begin")), SubtaskRecord.objects.exclude(status="REVOKED")
    assert executed == rows.count(), "something was taken from who had it"
    assert not rows.exclude(claims=1).exists()
    times = rows.exclude(run_after=None).values_list("claimed_at", "run_after")
    late = [claimed - due for claimed, due in times if claimed and due]
    assert len(late) == 3 * timed
    assert all(datetime.timedelta(0) <= one <= LATE for one in late), (min(late), max(late))
    check_countdowns(timed)
    report(
        f"{found.sets:,} sets of {MEMBERS} in {SECONDS:.0f} s, each subtask executed once; "
        f"{len(late)} with a countdown or an eta were claimed at most "
        f"{1000 * max(late).total_seconds():.0f} ms after it, none before"
    )


def apply_for_later(number: int) -> None:
    eta = get_store().now() + datetime.timedelta(seconds=DELAY)
    square.apply_async((number, 0.0), countdown=DELAY)
    square.apply_async((number, 0.0), eta=eta)
    square_later.delay(number, DELAY)


def check_countdowns(timed: int) -> None:
    """Those of subtasks that asked for them count from then, whatever their worker took for the
    time."""
    asked = SubtaskRecord.objects.filter(task_name=square_later.name)
    claimed = {row.get_args()[0]: row.claimed_at for row in asked}
    assert len(claimed) == timed
    for row in SubtaskRecord.objects.filter(task_name=square.name, taskset=None):
        number, longest = row.get_args()
        if longest == LATER:
            began = claimed.pop(number)
            assert row.run_after is not None
            assert began is not None
            assert abs(row.run_after - began - datetime.timedelta(seconds=DELAY)) <= LATE
    assert not claimed
