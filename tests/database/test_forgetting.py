"""What is forgotten is missed by those who need it, and by nobody else."""

from __future__ import annotations

import pytest

from django_tasksets import StillUnfinished, TaskSet, UnknownId
from django_tasksets.models import SubtaskRecord
from django_tasksets.testing import run_subtasks
from tests.tasks import add, fail, noop, total

pytestmark = pytest.mark.django_db


def test_a_none_that_was_returned_is_none_and_a_forgotten_result_is_missed():
    result = TaskSet([noop.subtask(), add.subtask((1, 1))]).apply_async()
    run_subtasks()
    assert result.join() == [None, 2]

    result[1].forget()

    with pytest.raises(UnknownId, match="forgotten"):
        result.join()
    value, error = result.join(propagate=False)
    assert value is None
    assert isinstance(error, UnknownId)
    assert result.successful()


def test_a_member_is_not_forgotten_before_its_set_and_its_callback_have_ended():
    calls = [add.subtask((1, 1)), add.subtask((2, 2))]
    result = TaskSet(calls, on_success=total.subtask()).apply_async()
    run_subtasks(limit=1)
    with pytest.raises(StillUnfinished, match="set is unfinished"):
        result[0].forget()
    run_subtasks(limit=1)
    with pytest.raises(StillUnfinished, match="callback"):
        result[0].forget()
    run_subtasks()

    result[0].forget()

    assert result.callbacks["on_success"].get() == 6


def test_a_callback_that_misses_a_result_says_so():
    """A retry of a set whose results were dropped cannot succeed without them."""
    calls = [add.subtask((1, 1)), fail.subtask()]
    result = TaskSet(calls, on_success=total.subtask()).apply_async()
    run_subtasks()
    result.forget()
    SubtaskRecord.objects.filter(position=1).update(task_name=noop.name)
    assert result.retry_failed() == 1

    run_subtasks()

    callback = result.callbacks["on_success"]
    assert callback.status == "FAILED"
    with pytest.raises(UnknownId, match="forgotten"):
        callback.get()
