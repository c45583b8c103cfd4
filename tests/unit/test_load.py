"""How much a worker claims, and what it remembers of what it holds."""

from __future__ import annotations

import select
import time
import uuid

import pytest

from django_tasksets.statuses import RevokeFlag, Role
from django_tasksets.store.contract import Claimed, Held
from django_tasksets.wakeups import LocalBell
from django_tasksets.worker.load import MAX_HELD, Load
from django_tasksets.worker.options import WorkerOptions
from tests.claims import claimed


@pytest.fixture
def load() -> Load:
    options = WorkerOptions(alias="default", threads=4, async_concurrency=20)
    return Load(options, LocalBell(), at_once=500)


def take(load: Load, count: int, *, asynchronous: bool = False, waiting: int = 0) -> list[Claimed]:
    rows = [claimed() for _ in range(count)]
    load.take(rows, rows if asynchronous else [], waiting)
    return rows


def has_rung(load: Load) -> bool:
    rung = bool(select.select([load.bell], [], [], 0)[0])
    load.bell.hush()
    return rung


# How much to claim


def test_at_first_one_for_each_thread(load: Load) -> None:
    assert load.wanted(waiting=0) == 4
    load.begin(0, waiting=0)
    assert load.wanted(waiting=2) == 1
    assert load.wanted(waiting=3) == 0
    load.end(0, waiting=3)
    assert load.wanted(waiting=3) == 1


def test_what_is_little_of_short_tasks_is_too_much_of_long_ones(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()

    def after(seconds: float, begun: int) -> None:
        nonlocal now
        now += seconds
        monkeypatch.setattr(time, "monotonic", lambda: now)
        for number in range(begun):
            load.begin(number % 4, 0)

    after(0, 0)
    load.observe(0.0001)
    take(load, 2000)
    after(0.1, 1)
    # It is too early to tell.
    assert not load.falls_behind(1999)
    after(0.4, 999)
    assert not load.falls_behind(1000)
    # They are long, but what has just been claimed besides says nothing about that.
    after(0.1, 5)
    take(load, 10, asynchronous=True, waiting=995)
    after(0.4, 95)
    assert load.target() == 1000
    assert load.falls_behind(900)
    assert 35 < load.target() <= 40
    # Those are given back, and the next ones are looked at by themselves.
    after(10, 0)
    take(load, 20)
    after(0.1, 2)
    assert not load.falls_behind(18)


def test_what_does_not_begin_at_all_is_stalled_and_not_slow(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(load, 2000)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1)
    assert not load.falls_behind(2000)


def test_one_that_was_kept_waiting_says_nothing_about_the_others(load: Load) -> None:
    take(load, 2000)
    load.observe(0.05)
    assert not load.falls_behind(1999)


def test_short_tasks_are_claimed_ahead_and_long_ones_are_not(load: Load) -> None:
    load.observe(0.01)
    assert load.target() == 80
    assert load.wanted(waiting=0) == 80
    assert load.wanted(waiting=40) == 40
    assert load.wanted(waiting=41) == 0
    for _ in range(100):
        load.observe(1.0)
    assert load.target() == 0
    assert load.wanted(waiting=0) == 4


def test_there_are_limits_to_it(load: Load) -> None:
    load.observe(0.0)
    assert load.target() == 1000
    assert load.wanted(waiting=0) == 500


def test_one_long_task_does_not_end_the_haste_for_long(load: Load) -> None:
    load.observe(0.001)
    load.observe(10)
    assert load.target() == 0
    for _ in range(50):
        load.observe(0.001)
    assert load.target() > 100


def test_async_tasks_are_claimed_in_ever_larger_numbers_until_the_loop_is_full(load: Load) -> None:
    counts = []
    while wanted := load.wanted(waiting=0):
        counts.append(wanted)
        take(load, wanted, asynchronous=True)
    assert counts == [4, 12, 4 + 4]
    assert sum(counts) <= 20 + 4


def test_a_full_loop_claims_nothing_until_there_is_room(load: Load) -> None:
    rows = take(load, 20, asynchronous=True)
    assert load.room_in_loop() == 0
    assert load.wanted(waiting=0) == 0
    load.drop(rows[:1])
    assert load.room_in_loop() == 1
    assert load.wanted(waiting=0) == 5


def test_no_more_is_claimed_while_nothing_can_be_recorded(load: Load) -> None:
    rows = take(load, MAX_HELD + 20)
    assert load.wanted(waiting=0) == 0
    load.drop(rows[:1])
    assert load.wanted(waiting=0) == 4


def test_nothing_is_claimed_beside_one_that_is_alone(load: Load) -> None:
    assert load.ask_to_be_alone()
    assert not load.ask_to_be_alone()
    assert (load.wanted(waiting=0), load.room_in_loop()) == (0, 0)
    load.begin(1, waiting=0)
    assert not load.others(1)
    load.begin(2, waiting=0)
    assert load.others(1)
    load.is_alone_no_more()
    assert has_rung(load)
    assert load.wanted(waiting=0) == 2


def test_what_does_not_move_is_noticed(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    take(load, 1)
    for slot in range(3):
        load.begin(slot, waiting=1)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1.5)
    # One of the threads may be about to take it.
    assert not load.is_stalled()
    load.begin(3, waiting=1)
    assert not load.is_stalled()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3)
    assert load.is_stalled()
    load.end(0, waiting=1)
    load.begin(0, waiting=0)
    assert not load.is_stalled()
    load.observe(0.0)
    load.slow_down()
    assert load.target() == 0


# Being woken


def test_a_hungry_claimer_is_woken_when_there_is_room(load: Load) -> None:
    load.observe(0.01)  # 80 may wait
    rows = take(load, 100)
    for wake in (
        lambda: load.begin(0, waiting=40),
        lambda: load.end(0, waiting=0),
        lambda: load.drop(rows[:1]),
    ):
        load.hungry = True
        wake()
        assert has_rung(load)
        wake()
        assert not has_rung(load)


def test_it_is_not_woken_for_less(load: Load) -> None:
    load.observe(0.01)
    load.hungry = True
    load.begin(0, waiting=41)
    load.end(0, waiting=41)
    assert not has_rung(load)


def test_who_waits_for_the_end_is_woken_once_all_has_followed(load: Load) -> None:
    first, second = take(load, 2)
    load.wants_end = True
    load.drop([first])
    assert not has_rung(load)
    load.expect(2)
    load.drop([second])
    assert has_rung(load)
    assert not load.is_quiet
    load.wants_end = True
    load.followed_up()
    assert not has_rung(load)
    load.followed_up()
    assert has_rung(load)
    assert load.is_quiet


# What is held


def test_one_that_is_claimed_again_is_not_dropped_with_its_former_claim(load: Load) -> None:
    """Given back and claimed anew before the recorder has got to letting go of it."""
    (before,) = take(load, 1)
    again = before._replace(claims=2)
    load.take([again], [], 0)
    load.drop([before])
    assert load.held() == [again]
    load.drop([again])
    assert load.in_flight == 0


def test_what_is_revoked(load: Load) -> None:
    rows = take(load, 3)
    ids = [row.id for row in rows]
    load.set_revoked(
        [
            Held(ids[0], 1, RevokeFlag.TERMINATE),
            Held(ids[1], 1, RevokeFlag.NONE),  # with its set
            Held(uuid.uuid4(), 1, RevokeFlag.REVOKE),
        ]
    )
    assert [load.is_revoked(key) for key in ids] == [True, True, False]
    assert [load.is_to_terminate(key) for key in ids] == [True, False, False]
    assert load.revoked() == ids[:2]
    load.drop(rows[:1])
    assert load.revoked() == ids[1:2]


def test_members_of_a_marked_set_are_revoked_at_once(load: Load) -> None:
    taskset = uuid.uuid4()
    members = [claimed(taskset_id=taskset) for _ in range(2)]
    callback = claimed(taskset_id=taskset, role=Role.ON_FINISH)
    load.take([*members, callback, claimed()], [], 0)
    load.revoke_set(taskset)
    assert load.revoked() == [row.id for row in members]


def test_how_long_what_is_held_should_take_is_known_once_something_has_ended(load: Load) -> None:
    assert load.time_to_end(0) == float("inf")
    load.observe(0.001)
    soon, later = load.time_to_end(0), load.time_to_end(100)
    assert 0.001 < soon < 0.01 < later < 1
