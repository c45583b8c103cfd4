"""The tasks, and the counting."""

from __future__ import annotations

import time
from typing import Any

from django.db.models import F
from django_tasks import task
from django_tasks_db.models import DBTaskResult

from .models import CountedSet


@task()
def add(set_id: int, x: int, y: int) -> int:
    return x + y


@task()
def total(set_id: int) -> None:
    numbers = results(set_id)
    began = time.time()
    CountedSet.objects.filter(pk=set_id).update(callback_began=began, total=sum(numbers))


def results(set_id: int) -> list[int]:
    """What the calls of a set returned, in their order."""
    calls = DBTaskResult.objects.filter(
        task_path=add.module_path, args_kwargs__args__0=set_id
    ).values_list("args_kwargs__args__1", "return_value")
    return [value for _, value in sorted(calls)]


def count_down(*, task_result: Any, **_: Any) -> None:
    """A receiver of `task_finished`, which is sent when the result has been stored: the last one
    of a set enqueues its callback."""
    if task_result.task.module_path != add.module_path:
        return
    own = CountedSet.objects.filter(pk=task_result.args[0])
    own.update(remaining=F("remaining") - 1)
    if own.filter(remaining=0, released=False).update(released=True):
        total.enqueue(task_result.args[0])
