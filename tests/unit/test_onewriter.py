"""Threads of one process that want SQLite's one lock, and take turns."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from django_tasksets.exceptions import SoftTimeLimitExceeded
from django_tasksets.store import onewriter
from django_tasksets.store.onewriter import OneWriter
from django_tasksets.worker import limits


@contextmanager
def held_elsewhere(writer: OneWriter) -> Iterator[threading.Event]:
    """Another thread has its turn, until the event is set."""
    has_it, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with writer.turn(), writer.writing():
            has_it.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    has_it.wait(10)
    try:
        yield leave
    finally:
        leave.set()
        thread.join()


def test_the_next_one_is_woken_at_once() -> None:
    writer = OneWriter()
    with held_elsewhere(writer) as leave:
        began = time.monotonic()
        threading.Timer(0.05, leave.set).start()
        with writer.turn():
            assert 0.05 <= time.monotonic() - began < onewriter.PATIENCE
            assert leave.is_set()


def test_whoever_has_waited_long_goes_ahead_and_takes_nothing_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onewriter, "PATIENCE", 0.05)
    writer = OneWriter()
    with held_elsewhere(writer):
        for _ in range(2):
            began = time.monotonic()
            with writer.turn():
                assert 0.04 < time.monotonic() - began < 5


def test_a_turn_may_be_given_up_before_the_block_ends() -> None:
    writer = OneWriter()
    with writer.turn() as end:
        end()
        end()
        with held_elsewhere(writer):
            pass
    with held_elsewhere(writer):
        pass


def test_a_soft_time_limit_that_comes_while_it_waits_takes_no_turn_with_it() -> None:
    writer = OneWriter()
    ended: list[BaseException] = []

    def impatient() -> None:
        try:
            with writer.turn():
                pytest.fail("has its turn, though it is somebody else's")
        except SoftTimeLimitExceeded as error:
            ended.append(error)

    with held_elsewhere(writer) as leave:
        thread = threading.Thread(target=impatient)
        thread.start()
        time.sleep(0.05)
        limits._raise_in(thread.ident or 0, SoftTimeLimitExceeded)
        leave.set()
        thread.join()
    assert len(ended) == 1
    began = time.monotonic()
    with writer.turn():
        assert time.monotonic() - began < onewriter.PATIENCE / 2


def test_who_executes_makes_way_for_who_writes_but_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onewriter, "PACE", 0.05)
    writer = OneWriter()
    began = time.monotonic()
    writer.pace()
    assert time.monotonic() - began < 0.04
    with held_elsewhere(writer):
        began = time.monotonic()
        writer.pace()
        assert 0.04 < time.monotonic() - began < 1


# Python warns of what is tested here.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_in_a_fork_nobody_else_is_there() -> None:
    """A task may fork while the recorder writes, and use the package in the child."""
    writer = OneWriter()
    with held_elsewhere(writer):
        pid = os.fork()
        if pid == 0:
            code = 2
            try:
                began = time.monotonic()
                with writer.turn(), writer.writing():
                    code = time.monotonic() - began > onewriter.PATIENCE / 2
            finally:
                os._exit(code)
        deadline = time.monotonic() + 5
        ended, status = 0, -1
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.01)
        if not ended:
            os.kill(pid, 9)
            _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
