"""How soon threads hand the interpreter over while somebody writes whom others wait for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from django_tasksets.wakeups import LocalBell
from django_tasksets.worker.handover import SOON, Handover
from django_tasksets.worker.load import Load
from django_tasksets.worker.options import WorkerOptions


@pytest.fixture(autouse=True)
def usual() -> Iterator[float]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.004)
    yield 0.004
    sys.setswitchinterval(before)


def is_soon() -> bool:
    return sys.getswitchinterval() == pytest.approx(SOON)


def is_usual() -> bool:
    return sys.getswitchinterval() == pytest.approx(0.004)


def test_until_the_last_is_out() -> None:
    handover = Handover()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with handover:
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with handover:
        thread.start()
        inside.wait(10)
    assert is_soon()
    leave.set()
    thread.join()
    assert is_usual()


def test_after_an_error_too() -> None:
    handover = Handover()
    with pytest.raises(ValueError, match="broken"), handover:
        raise ValueError("broken")
    assert is_usual()


def test_a_shorter_one_of_the_project_stands() -> None:
    sys.setswitchinterval(SOON / 5)
    # Python keeps it in whole microseconds.
    the_same = pytest.approx(SOON / 5, abs=2e-6)
    with Handover():
        assert sys.getswitchinterval() == the_same
    assert sys.getswitchinterval() == the_same


@pytest.mark.parametrize(
    ("has_one_writer", "duration", "soon"),
    [(True, 0.01, True), (True, 0.00002, False), (True, None, False), (False, 0.01, False)],
)
def test_where_others_wait_for_who_writes_and_calls_are_not_short(
    has_one_writer: bool, duration: float | None, soon: bool
) -> None:
    options = WorkerOptions(alias="default", threads=4, async_concurrency=20)
    load = Load(options, LocalBell(), at_once=500, has_one_writer=has_one_writer)
    if duration is not None:
        load.observe(duration)
    with load.writing():
        assert is_soon() == soon
    assert is_usual()
