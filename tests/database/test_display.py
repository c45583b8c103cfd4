"""What `runtaskworker --progress` shows."""

from __future__ import annotations

import pytest

from django_tasksets import TaskSet
from django_tasksets.store import get_store
from django_tasksets.testing import run_subtasks
from django_tasksets.worker.display import Display
from tests.tasks import add, fail

pytestmark = pytest.mark.django_db


@pytest.fixture
def shown(capsys):
    """The lines that one turn prints."""
    display = Display(get_store())

    def turn():
        display.turn()
        return capsys.readouterr().out.splitlines()

    return turn


def test_a_line_for_each_running_set_when_its_counts_have_changed(shown):
    TaskSet([add.subtask((n, n)) for n in range(4)], name="sums").apply_async()
    unnamed = TaskSet([add.subtask((1, 1), {}, {"queue": "later"})]).apply_async()

    first = f"[{'.' * 30}]   0 % of"
    assert shown() == [
        f"{first} 4, 0 failed, 0 revoked, RUNNING sums",
        f"{first} 1, 0 failed, 0 revoked, RUNNING {unnamed.id}",
    ]
    assert shown() == []
    run_subtasks(queues=["default"], limit=1)
    assert shown() == [f"[{'#' * 7}{'.' * 23}]  25 % of 4, 0 failed, 0 revoked, RUNNING sums"]


def test_the_last_line_of_a_set_says_how_it_ended(shown):
    TaskSet([add.subtask((1, 1)), fail.subtask()], name="mixed").apply_async()
    shown()
    run_subtasks()

    assert shown() == [f"[{'#' * 30}] 100 % of 2, 1 failed, 0 revoked, FAILED mixed"]
    assert shown() == []


def test_a_set_that_is_deleted_meanwhile_is_dropped(shown):
    result = TaskSet([add.subtask((1, 1))]).apply_async()
    shown()
    run_subtasks()
    result.delete()

    assert shown() == []


def test_names_do_not_reach_the_terminal_as_they_are(shown):
    TaskSet([add.subtask((1, 1))], name="red \x1b[31m\nline").apply_async()

    (line,) = shown()
    assert line.endswith("RUNNING red ?[31m?line")
