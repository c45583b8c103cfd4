"""A disk on which nothing more can be written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
from django.db import connection

from django_tasksets import TaskSet
from tests import services
from tests.chaos import disk, load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.server import given
from tests.chaos.tasks import tell, write_at_length
from tests.workers.harness import Ledger, Start, Worker

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS: Final = scale.size(5.0, 45.0)
MEMBERS: Final = scale.size(1000, 5000)
BUSY: Final = 0.25
"""What all processes of a worker together may use of a core while they wait."""


@contextmanager
def small_disk(directory: Path) -> Iterator[tuple[disk.Disk, dict[str, str]]]:
    """One that the database lies on, and what leads workers there."""
    if connection.vendor == "sqlite":
        with disk.under_file(directory) as (found, name):
            yield found, {services.DATABASE_NAME: name}
        return
    server = given()
    assert server is not None
    load.forget_connections()
    try:
        with disk.under_server(server) as found:
            yield found, {}
    finally:
        load.forget_connections()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a disk can be."""
    place = tmp_path / "disk"
    place.mkdir()
    if not disk.may_mount(place):
        pytest.skip("a file system can only be mounted by root, and not in every container")
    return place


def used(worker: Worker) -> float:
    """How much time of a processor its processes have used, in seconds."""
    ticks = 0
    for pid in worker.family():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(words[11]) + int(words[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def keep_full(found: disk.Disk, worker: Worker) -> float:
    """Fill it, and keep it full; the share of a core that the worker uses in the second half, when
    what it had claimed before is executed."""
    until, half = time.monotonic() + SECONDS, time.monotonic() + SECONDS / 2
    before = None
    while time.monotonic() < until:
        found.fill()
        time.sleep(0.1)
        if before is None and time.monotonic() > half:
            before = used(worker)
    assert before is not None
    return (used(worker) - before) / (SECONDS / 2)


def wake(worker: Worker) -> bool:
    """Start the server again if it has given up, as whoever makes room for it would."""
    server = given()
    if server is None or server.answers():
        return False
    server.crash()
    server.start()
    return True


@pytest.mark.experiment("The database's disk is full for a while")
@pytest.mark.timeout(300 + SECONDS)
def test_a_full_disk_is_waited_for(
    start: Start, ledger: Ledger, place: Path, report: Report
) -> None:
    with small_disk(place) as (found, environment):
        worker = start("--processes", "2", "-v0", settings={}, **environment)
        pids = worker.wait_for_processes(2)
        # Servers have room for short results on the pages that they have.
        calls = (write_at_length.subtask((number, 0.02)) for number in range(MEMBERS))
        result = TaskSet(calls, on_finish=tell.subtask()).apply_async()
        ledger.wait_for("begin", count=MEMBERS // 20)
        busy = keep_full(found, worker)
        at_once = len(ledger.lines("end"))
        found.free()
        ended = wake(worker)
        took = load.wait_for_the_end(120)

        assert busy < BUSY, f"{busy:.0%} of a core"
        assert at_once < MEMBERS, "the disk was never full"
        assert worker.process.poll() is None
        assert worker.wait_for_processes(2) == pids, "a process has ended"
        load.stop_all(worker)
        account = oracle.check(ledger)
        assert result.successful()
    report(
        f"{SECONDS:.0f} s; {busy:.0%} of a core used meanwhile, no process ended"
        f"{', the server did' if ended else ''}; all {MEMBERS:,} members ended {took:.0f} s after "
        f"there was room, 0 lost, 0 doubled, {account.again} executed again"
    )
