from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

import pytest
from django.db import connections

from django_tasksets import ResultTimeout, WouldDeadlock
from django_tasksets.context import Request, current_request
from django_tasksets.waiting import SHORTEST_PAUSE, Patience, Steps, adrive, afirst, drive, first


def patience(timeout: float | None = None, interval: float = 0.5) -> Patience:
    return Patience(timeout=timeout, interval=interval, what="Subtask 1")


def pauses(waiting: Patience, *, progressed: bool = False) -> Iterator[float]:
    while True:
        yield waiting.pause(progressed=progressed)


def test_pauses_grow_up_to_the_interval() -> None:
    seconds = list(islice(pauses(patience()), 20))
    assert seconds[0] == SHORTEST_PAUSE
    assert seconds == sorted(seconds)
    assert seconds[-1] == 0.5


def test_pauses_shrink_while_something_happens() -> None:
    waiting = patience()
    list(islice(pauses(waiting), 20))
    seconds = list(islice(pauses(waiting, progressed=True), 20))
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] == SHORTEST_PAUSE


def test_a_slow_look_is_followed_by_a_long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.05])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert patience().pause() == pytest.approx(0.25)


def test_waiting_ends_at_the_time_limit() -> None:
    with pytest.raises(ResultTimeout, match=r"Subtask 1 did not finish within 0 s"):
        patience(timeout=0).pause()
    assert patience(timeout=0.001).pause() <= 0.001
    assert issubclass(ResultTimeout, TimeoutError)


def test_nobody_waits_inside_a_subtask() -> None:
    token = current_request.set(Request(task="t"))
    try:
        with pytest.raises(WouldDeadlock, match="inside a subtask"):
            patience().pause()
    finally:
        current_request.reset(token)


def test_an_eager_subtask_may_wait() -> None:
    token = current_request.set(Request(task="t", is_eager=True))
    try:
        assert patience().pause() > 0
    finally:
        current_request.reset(token)


def test_nobody_waits_inside_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    # The connection itself: undone on Django's proxy, the attribute would be deleted from it.
    monkeypatch.setattr(connections["default"], "in_atomic_block", True)
    with pytest.raises(WouldDeadlock, match="open transaction"):
        patience().pause()


def steps() -> Steps[int]:
    yield 0.0
    yield [1, 2]
    yield 0.001
    yield []
    yield [3]


def test_steps_are_driven_with_and_without_asyncio() -> None:
    async def collected() -> list[int]:
        return [value async for value in adrive(steps())]

    async def the_first() -> int:
        return await afirst(steps())

    assert list(drive(steps())) == asyncio.run(collected()) == [1, 2, 3]
    assert first(steps()) == asyncio.run(the_first()) == 1


def test_errors_come_out_of_both() -> None:
    def failing() -> Steps[int]:
        yield 0.0
        raise ValueError("no")

    async def awaited() -> int:
        return await afirst(failing())

    with pytest.raises(ValueError, match="no"):
        first(failing())
    with pytest.raises(ValueError, match="no"):
        asyncio.run(awaited())
