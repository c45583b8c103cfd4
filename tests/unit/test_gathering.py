from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasksets import EagerResult, Progress, TaskSetStatus, UnknownId
from django_tasksets.gathering import Undelivered, as_they_finish, in_order
from django_tasksets.members import CHUNK, Members
from django_tasksets.progress import progress_of_list
from django_tasksets.reading import Reading
from django_tasksets.waiting import Patience


class Scripted(Members):
    """Members in memory; a test finishes them, and sees which chunks were looked at."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.ended: dict[int, str] = {}
        self.counts: Counter[str] = Counter()
        self.gone: set[int] = set()
        self.looks: list[int] = []

    def end(self, *positions: int, status: str = "SUCCESSFUL") -> None:
        for position in positions:
            if position not in self.ended:
                self.ended[position] = status
                self.counts[status] += 1

    def progress(self) -> Progress:
        return progress_of_list(
            total=self.total,
            successful=self.counts["SUCCESSFUL"],
            failed=self.counts["FAILED"],
            revoked=self.counts["REVOKED"],
        )

    def unknown(self) -> None:
        return None

    def ids(self, start: int, stop: int) -> list[uuid.UUID]:
        raise NotImplementedError

    def finished(self, start: int, stop: int) -> list[int]:
        self.looks.append(start // CHUNK)
        return [p for p in range(start, stop) if p in self.ended and p not in self.gone]

    def readings(self, positions: Sequence[int]) -> Mapping[int, Reading]:
        return {p: self.reading(p) for p in positions if p in self.ended and p not in self.gone}

    def reading(self, position: int) -> Reading:
        value: Any = position
        if self.ended[position] != "SUCCESSFUL":
            value = ValueError(position)
        return EagerResult(uuid.uuid4(), value, self.ended[position]).reading

    def first_failure(self) -> Reading | None:
        failed = [p for p, status in sorted(self.ended.items()) if status == "FAILED"]
        return self.reading(failed[0]) if failed else None


def patience() -> Patience:
    return Patience(timeout=None, interval=0.5, what="it")


def values(steps: list[list[int] | float]) -> list[int]:
    return [value for step in steps if isinstance(step, list) for value in step]


# As they finish


def test_each_is_delivered_once_and_soon() -> None:
    members = Scripted(5)
    members.end(3, 1)
    steps = as_they_finish(members, patience(), propagate=True)
    assert next(steps) == [1, 3]
    assert isinstance(next(steps), float)
    assert isinstance(next(steps), float)
    members.end(0, 2, 4)
    assert list(steps) == [[0, 2, 4]]


def test_while_nothing_finishes_no_member_is_looked_at() -> None:
    members = Scripted(10_000)
    steps = as_they_finish(members, patience(), propagate=True)
    members.end(0)
    next(steps)
    members.looks.clear()
    assert [type(next(steps)) for _ in range(5)] == [float] * 5
    assert members.looks == []


def test_a_large_set_that_finishes_roughly_in_order_is_not_scanned_whole() -> None:
    total, step = 100_000, 700
    members = Scripted(total)
    order = list(range(total))
    chance = random.Random(1)
    order.sort(key=lambda position: position + chance.uniform(0, 1500))
    # A few that take until the end.
    order += [order.pop(chance.randrange(50_000)) for _ in range(5)]
    steps = as_they_finish(members, patience(), propagate=True)
    found: list[int] = []
    for n in range(0, total, step):
        members.end(*order[n : n + step])
        while isinstance(batch := next(steps, 0.0), list):
            assert len(batch) <= 100
            found += batch
    found += values(list(steps))
    assert sorted(found) == list(range(total))
    assert len(members.looks) < 8 * total / step


def test_a_stalled_beginning_does_not_hide_the_rest() -> None:
    total = 20_000
    members = Scripted(total)
    steps = as_they_finish(members, patience(), propagate=True)
    found: list[int] = []
    for n in range(10_000, total, 100):
        members.end(*range(n, n + 100))
        while isinstance(batch := next(steps), list):
            found += batch
    assert found == list(range(10_000, total))
    # Once for each new chunk past the stalled ones, not for each hundred.
    assert len(members.looks) < 300
    members.end(*range(10_000))
    assert len(values(list(steps))) == 10_000


@given(st.lists(st.lists(st.integers(0, 3 * CHUNK - 1), max_size=50), max_size=8))
def test_any_order_delivers_all(rounds: list[list[int]]) -> None:
    members = Scripted(3 * CHUNK)
    steps = as_they_finish(members, patience(), propagate=True)
    found: list[int] = []
    for positions in [*rounds, list(range(3 * CHUNK))]:
        members.end(*positions)
        while isinstance(batch := next(steps, 0.0), list):
            found += batch
        assert sorted(found) == sorted(members.ended)
    assert list(steps) == []


def test_a_set_may_grow() -> None:
    members = Scripted(CHUNK - 1)
    steps = as_they_finish(members, patience(), propagate=True)
    members.end(*range(CHUNK - 2))
    assert sum(len(step) for _ in range(10) if isinstance(step := next(steps), list)) == CHUNK - 2
    members.total = CHUNK + 1
    members.end(CHUNK - 2, CHUNK - 1, CHUNK)
    assert values(list(steps)) == [CHUNK - 2, CHUNK - 1, CHUNK]


def test_what_comes_before_a_failure_is_delivered_before_it() -> None:
    members = Scripted(3)
    members.end(0, 2)
    members.end(1, status="FAILED")
    steps = as_they_finish(members, patience(), propagate=True)
    assert next(steps) == [0]
    with pytest.raises(ValueError, match="1"):
        next(steps)


def test_failures_are_values_if_so_wished() -> None:
    members = Scripted(2)
    members.end(0)
    members.end(1, status="FAILED")
    zero, one = values(list(as_they_finish(members, patience(), propagate=False)))
    assert zero == 0
    assert isinstance(one, ValueError)


def test_members_that_are_gone_end_the_wait() -> None:
    members = Scripted(3)
    members.end(0, 1, 2)
    members.gone.add(1)
    steps = as_they_finish(members, patience(), propagate=True)
    assert next(steps) == [0, 2]
    with pytest.raises(UnknownId, match="forgotten or pruned"):
        list(steps)


# In their order


def test_all_are_waited_for_and_come_in_order() -> None:
    members = Scripted(250)
    members.end(*range(200))
    steps = in_order(members, patience(), propagate=True)
    assert isinstance(next(steps), float)
    members.end(*range(200, 250))
    assert values(list(steps)) == list(range(250))


def test_the_first_failure_is_raised_without_waiting_for_the_others() -> None:
    members = Scripted(3)
    members.end(2, status="FAILED")
    with pytest.raises(ValueError, match="2"):
        next(in_order(members, patience(), propagate=True))
    members.end(0, 1)
    *ended, failure = values(list(in_order(members, patience(), propagate=False)))
    assert ended == [0, 1]
    assert isinstance(failure, ValueError)


def test_a_member_that_is_gone_is_an_error_in_its_place() -> None:
    members = Scripted(3)
    members.end(0, 1, 2)
    members.gone.add(1)
    with pytest.raises(UnknownId):
        list(in_order(members, patience(), propagate=True))
    zero, one, two = values(list(in_order(members, patience(), propagate=False)))
    assert (zero, two) == (0, 2)
    assert isinstance(one, UnknownId)


def test_an_empty_set_comes_to_nothing() -> None:
    members = Scripted(0)
    assert values(list(in_order(members, patience(), propagate=True))) == []
    assert list(as_they_finish(members, patience(), propagate=True)) == []
    assert members.progress().status == TaskSetStatus.SUCCESSFUL


def test_chunks_are_walked_from_where_results_came_from() -> None:
    undelivered = Undelivered()
    undelivered.grow(5 * CHUNK)
    undelivered.deliver([2 * CHUNK])
    walked = []
    for chunk in undelivered.walk():
        walked.append(chunk)
        if chunk == 2:
            undelivered.deliver([2 * CHUNK + 1])
    assert walked == [2, 3, 0, 1, 4]
