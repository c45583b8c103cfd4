"""What workers withstand: tasks that misbehave, and a database that goes away."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from django.db import connection

from django_tasksets import ResultTimeout, TaskSet
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from tests.tasks import echo, noop
from tests.workers.harness import Ledger, Start, row, wait_until
from tests.workers.proxy import VARIABLES, Forwarder, place_of_the_server
from tests.workers.tasks import (
    die,
    hold,
    leave_loop,
    leave_trace,
    misbehave,
    nap,
    write,
)

pytestmark = pytest.mark.django_db(transaction=True)


# Tasks


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("open transaction", "SUCCESSFUL"),
        ("autocommit off", "SUCCESSFUL"),
        ("closed", "SUCCESSFUL"),
        ("exit", "FAILED"),
        ("interrupt", "FAILED"),
        ("recursion", "FAILED"),
    ],
)
def test_the_next_task_finds_thread_and_connection_in_order(
    start: Start, how: str, status: str
) -> None:
    bad, good = [misbehave.delay(how) for _ in range(3)], [leave_trace.delay() for _ in range(3)]

    worker = start("--burst", "--processes", "1", "--threads", "1")
    assert worker.wait() == 0

    assert {one.status for one in bad} == {status}
    assert [one.get() for one in good] == [1, 2, 3]
    assert leave_trace.run() == 4


def test_a_task_of_a_task_that_exits_leaves_the_loop_to_the_others(start: Start) -> None:
    leaving, staying = leave_loop.delay(), [nap.delay(0.1) for _ in range(3)]

    worker = start("--burst", "--processes", "1")
    assert worker.wait() == 0
    worker.fails = True

    assert leaving.status == "SUCCESSFUL"
    assert all(one.successful() for one in staying)


def test_neighbours_of_what_kills_its_process_are_not_blamed(start: Start, ledger: Ledger) -> None:
    """With one crash allowed, one that may have been a neighbour's fault is not yet one."""
    poison = die.delay("now", "kill")
    neighbours = [hold.delay(str(number)) for number in range(3)]
    worker = start("--processes", "1", "--threads", "4", settings={"MAX_CRASHES": 1})
    ledger.wait_for("begin", count=4)

    ledger.tell("now")
    wait_until(lambda: "worker process gone" in worker.log, "the death")
    # From now on: all four are suspects, and any of them may be the first to be alone.
    ledger.tell("0", "1", "2")

    wait_until(poison.ready, "its end")
    wait_until(lambda: all(one.ready() for one in neighbours), "theirs")
    assert poison.status == "FAILED"
    assert "SIGKILL" in row(poison).reason
    assert {one.status for one in neighbours} == {"SUCCESSFUL"}
    assert worker.stop() == 0


def test_a_suspect_is_executed_alone(start: Start, ledger: Ledger) -> None:
    SubtaskRecord.objects.filter(id=hold.delay("suspect").id).update(crashes=1)
    others = [write.delay(str(number)) for number in range(20)]
    start("--processes", "1", "--threads", "4")

    ledger.wait_for("begin", "suspect")
    seen = len(ledger.lines("write"))
    assert not ledger.lines("end")
    # Those that would have to wait are not held.
    wait_until(
        lambda: SubtaskRecord.objects.filter(status="RUNNING").count() == 1, "the others' return"
    )
    assert len(ledger.lines("write")) == seen
    with pytest.raises(ResultTimeout):
        write.delay("meanwhile").get(timeout=1)
    ledger.tell("suspect")

    wait_until(lambda: all(one.ready() for one in others), "the others")


# The database


@pytest.fixture
def forwarder() -> Iterator[Forwarder]:
    if connection.vendor not in VARIABLES:
        pytest.skip("this database has no server")
    forwarder = Forwarder(*place_of_the_server())
    yield forwarder
    forwarder.end()


def test_a_worker_waits_for_its_server(start: Start, forwarder: Forwarder) -> None:
    result = noop.delay()
    worker = start("--processes", "1", settings={}, **forwarder.environment)
    wait_until(lambda: "worker waits for the database" in worker.log, "it to wait")

    forwarder.begin()

    wait_until(result.ready, "its work")
    assert worker.stop() == 0


def test_connections_may_break_at_any_time(
    start: Start, forwarder: Forwarder, ledger: Ledger
) -> None:
    forwarder.begin()
    count = 3000
    result = TaskSet(
        [write.subtask((str(i),)) for i in range(count)], on_success=echo.subtask()
    ).apply_async()
    worker = start("--processes", "2", "--threads", "2", settings={}, **forwarder.environment)

    for part in range(1, 10):
        wait_until(
            lambda part=part: len(ledger.lines("write")) > count * part / 12,  # type: ignore[misc]
            "some work",
        )
        forwarder.cut()

    callback = result.callbacks["on_success"]
    wait_until(callback.ready, "the callback")
    record = TaskSetRecord.objects.get()
    assert (record.status, record.successful) == ("SUCCESSFUL", count)
    assert (callback.status, row(callback).claims) == ("SUCCESSFUL", 1)
    assert len({line[1] for line in ledger.lines("write")}) == count
    assert worker.stop() == 0


def test_a_worker_ends_while_its_server_is_away(
    start: Start, forwarder: Forwarder, ledger: Ledger
) -> None:
    """What it holds is given to others once it is missed."""
    forwarder.begin()
    result = hold.delay("long")
    lease = {"LEASE": 4}
    worker = start("--processes", "1", "--grace", "1", settings=lease, **forwarder.environment)
    ledger.wait_for("begin", "long")

    forwarder.end()
    worker.signal(signal.SIGTERM)

    assert worker.wait(20) == 0
    assert row(result).status == "RUNNING"
    ledger.tell("long")
    other = start("--processes", "1", settings=lease)
    wait_until(result.ready, "its end elsewhere")
    assert row(result).crashes == 0
    assert other.stop() == 0
