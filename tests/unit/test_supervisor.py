"""The parts of a supervisor that can be looked at alone."""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError

from django_tasksets.execution import Worker
from django_tasksets.ids import new_id
from django_tasksets.management.commands import runtaskworker
from django_tasksets.store import get_store
from django_tasksets.worker.board import DEAD, Board
from django_tasksets.worker.forks import Forks, cause_of_death
from django_tasksets.worker.limits import Limits, Running, overtime
from django_tasksets.worker.memory import memory
from django_tasksets.worker.options import WorkerOptions
from django_tasksets.worker.reloading import Reloader
from django_tasksets.worker.supervisor import FIRST_DELAY, LAST_DELAY, Restarts
from tests.claims import claimed

# The board


def test_a_place_says_who_executes_what() -> None:
    board = Board(places=2, slots=3)
    one, two = new_id(), new_id()
    board.begin(1, 0, one)
    board.begin(1, 2, two)
    assert (board.executing(0), board.executing(1)) == ([], [one, two])
    board.end(1, 0)
    assert board.executing(1) == [two]
    board.clear(1)
    assert board.executing(1) == []


def test_a_place_says_what_is_over_its_time() -> None:
    board = Board(places=2, slots=3)
    one, two, three = new_id(), new_id(), new_id()
    board.begin(1, 0, one)
    board.begin(1, 1, two, until=10)
    board.begin(1, 2, three, until=20)
    assert [board.overdue(1, moment) for moment in (9, 11, 21)] == [[], [two], [two, three]]
    assert board.overdue(0, 21) == []
    board.end(1, 1)
    assert board.overdue(1, 11) == []


def test_a_place_says_how_its_process_ended() -> None:
    """By its own account: any task may end it with any code."""
    board = Board(places=1, slots=1)
    assert (board.has_left(0), board.has_given_up(0)) == (False, False)
    board.give_up(0)
    assert (board.has_left(0), board.has_given_up(0)) == (False, True)
    board.leave(0)
    assert (board.has_left(0), board.has_given_up(0)) == (True, False)
    board.clear(0)
    assert (board.has_left(0), board.has_given_up(0)) == (False, False)


def test_a_place_says_whether_its_worker_is_known_to_live() -> None:
    board = Board(places=2, slots=1)
    now = time.monotonic()
    board.confirm(0, now)
    board.confirm(1, now - 1000)
    assert (board.is_known(0), board.is_known(1)) == (True, False)
    assert board.silence(1) == pytest.approx(1000, abs=5)
    board.confirm(0, DEAD)
    assert not board.is_known(0)
    assert board.silence(0) == float("inf")


def test_who_has_left_stays_so_until_the_next_one_comes() -> None:
    board = Board(places=2, slots=1)
    board.leave(0)
    board.confirm(0, time.monotonic())
    assert (board.has_left(0), board.has_left(1)) == (True, False)
    board.clear(0)
    assert not board.has_left(0)


def test_it_mourns_until_all_the_dead_are_buried() -> None:
    board = Board(places=1, slots=1)
    assert not board.is_mourning
    board.mourn(1)
    board.mourn(2)
    board.bury(1)
    assert board.is_mourning
    board.bury(2)
    assert not board.is_mourning


def test_another_process_sees_it_and_hears_its_bell() -> None:
    board = Board(places=2, slots=1)
    forks = Forks()
    process = forks.start("child", _ring, board)
    process.join(20)
    assert process.exitcode == 0
    assert board.has_left(1)
    assert select.select(board.bells, [], [], 20)[0] == board.bells
    forks.let_go()


def _ring(board: Board, in_child: Any) -> None:
    in_child({})
    board.leave(1)
    board.ring_all()


# Who listens


@pytest.fixture
def three() -> Board:
    """A board on which all three are alive."""
    board = Board(places=3, slots=1)
    for place in range(3):
        board.confirm(place, time.monotonic())
    return board


def rung(board: Board) -> list[int]:
    """Whose bells have rung since the last time."""
    found = select.select(board.bells, [], [], 0)[0]
    for bell in found:
        bell.hush()
    return [board.bells.index(bell) for bell in found]


def test_one_process_listens_for_all(three: Board) -> None:
    assert [three.listens(place) for place in (1, 0, 2, 1)] == [True, False, False, True]


def test_when_it_has_enough_to_do_those_who_wait_are_woken(three: Board) -> None:
    assert three.listens(1)
    three.wait(2, waits=True)

    three.listens_no_more(0)
    assert rung(three) == []
    three.listens_no_more(1)

    assert rung(three) == [2]
    assert three.listens(2)


@pytest.mark.parametrize("is_lost", [True, False])
def test_who_cannot_listen_does_not(three: Board, is_lost: bool) -> None:
    assert three.listens(0)

    if is_lost:
        three.confirm(0, DEAD)
    else:
        three.leave(0)

    assert three.listens(1)


def test_whose_process_has_died_is_replaced_at_once(three: Board) -> None:
    assert three.listens(0)
    three.wait(1, waits=True)

    three.clear(0)

    assert rung(three) == [1]
    assert three.listens(1)


def test_who_has_not_heard_is_relieved(three: Board) -> None:
    assert three.listens(0)

    three.relieve()

    assert three.listens(1)
    assert not three.listens(0)


def test_only_those_who_wait_are_woken_for_more(three: Board) -> None:
    three.wait(0, waits=True)
    three.wait(2, waits=True)

    three.ring_waiting(0)

    assert rung(three) == [2]


# Children


def test_a_child_has_its_handlers_from_the_first_signal_on_and_ends_with_its_parent() -> None:
    forks = Forks()
    process = forks.start("child", _wait_for_the_end)
    assert process.pid is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        os.kill(process.pid, number)
    forks.let_go()
    process.join(20)
    assert process.exitcode == 0


def _wait_for_the_end(in_child: Any) -> None:
    lifeline = in_child({})
    select.select([lifeline], [], [])


def test_causes_of_death_in_words() -> None:
    assert cause_of_death(-9) == "died by SIGKILL"
    assert cause_of_death(-99) == "died by signal 99"
    assert cause_of_death(3) == "exited with code 3"


def test_those_that_die_young_are_replaced_ever_later() -> None:
    restarts = Restarts()
    assert restarts.after(100) == 0
    delays = [restarts.after(0.1) for _ in range(10)]
    assert delays[:3] == [2 * FIRST_DELAY, 4 * FIRST_DELAY, 8 * FIRST_DELAY]
    assert delays[-1] == LAST_DELAY
    assert restarts.after(100) == 0
    assert restarts.after(0.1) == 2 * FIRST_DELAY


# Limits


def test_limits_are_the_calls_own_or_else_the_tasks() -> None:
    class Prepared:
        claimed = "claimed"
        options: dict[str, Any] = {}

        class task:  # noqa: N801
            name = "t"
            soft_time_limit = 1.0
            time_limit = 2.0

    limits: Any = Limits()
    assert limits.running(Prepared, 0.0) == Running(limits_claimed(), 0.0, 1.0, 2.0)
    Prepared.options = {"time_limit": 9.0, "soft_time_limit": None}
    assert limits.running(Prepared, 0.0) == Running(limits_claimed(), 0.0, None, 9.0)


def limits_claimed() -> Any:
    return "claimed"


def test_what_is_over_a_limit() -> None:
    running = Running(limits_claimed(), 100.0, None, 5.0)
    assert running.is_over(running.hard, 105.1)
    assert not running.is_over(running.hard, 104.9)
    assert not running.is_over(running.soft, 1e9)


def test_memory_is_told_in_bytes() -> None:
    assert 10 << 20 < memory() < 10 << 30


# Reloading


def test_a_change_is_noticed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    moments: dict[Path, float] = {tmp_path: 1.0}
    monkeypatch.setattr("django_tasksets.worker.reloading._files", lambda: dict(moments))
    loads = [False, True]
    monkeypatch.setattr("django_tasksets.worker.reloading._can_be_loaded", lambda: loads.pop(0))
    reloader = Reloader()
    assert not reloader.is_to_reload()
    moments[tmp_path / "new"] = 1.0
    assert not reloader.is_to_reload()
    moments[tmp_path] = 2.0
    assert not reloader.is_to_reload()  # It cannot be loaded.
    assert not reloader.is_to_reload()
    moments[tmp_path] = 3.0
    assert reloader.is_to_reload()


# The command


def parse(*arguments: str) -> dict[str, Any]:
    parser = runtaskworker.Command().create_parser("manage.py", "runtaskworker")
    return vars(parser.parse_args(list(arguments)))


def test_options() -> None:
    options = parse("--queues", "a, b", "--max-memory", "2G", "--burst", "--health-file", "/x")
    assert (options["queues"], options["max_memory"]) == (("a", "b"), 2 << 30)
    assert (options["burst"], options["health_file"]) == (True, Path("/x"))
    assert (options["threads"], options["async_concurrency"]) == (4, 200)
    assert (options["grace"], options["interval"]) == (25, 0.5)
    assert parse("--queues", "*")["queues"] == ()
    assert options.keys() >= WorkerOptions.__dataclass_fields__.keys() - {"alias"}


def test_options_of_db_worker_are_understood() -> None:
    line = "--queue-name a --interval 2 --batch --max-tasks 3 --backend b --worker-id x --no-reload"
    options = parse(*line.split(), "--no-startup-delay")
    assert options["queues"] == ("a",)
    assert (options["burst"], options["interval"], options["max_tasks"]) == (True, 2, 3)


@pytest.mark.parametrize(
    "line",
    ["--processes 0", "--threads x", "--max-memory 5T", "--grace -1", "--interval nan",
     "--queues a,,b"],
)  # fmt: skip
def test_options_that_make_no_sense(line: str) -> None:
    with pytest.raises((CommandError, argparse.ArgumentError)):
        parse(*line.split())


@pytest.fixture
def logger() -> logging.Logger:
    return logging.Logger("of this test")  # noqa: LOG001  known to nobody else


def test_the_log_is_shown_unless_the_project_has_decided_about_it(logger: logging.Logger) -> None:
    runtaskworker.configure_logging(logger, 1)
    assert (logger.level, len(logger.handlers)) == (logging.INFO, 1)


def test_a_level_of_the_projects_own_is_kept(logger: logging.Logger) -> None:
    logger.setLevel(logging.ERROR)
    runtaskworker.configure_logging(logger, 3)
    assert (logger.level, len(logger.handlers)) == (logging.ERROR, 1)


def test_handlers_of_the_projects_own_are_kept(logger: logging.Logger) -> None:
    handler = logging.NullHandler()
    logger.addHandler(handler)
    runtaskworker.configure_logging(logger, 0)
    assert (logger.level, logger.handlers) == (logging.ERROR, [handler])


def test_a_time_limit_says_where_it_was() -> None:
    running = Running(claimed("t"), 0.0, None, 5.0, thread=threading.get_ident())
    outcome = overtime(Worker(store=get_store(), id=new_id()), running)
    assert outcome.status == "FAILED"
    assert "5 s" in outcome.error_message
    assert "test_a_time_limit_says_where_it_was" in outcome.error
