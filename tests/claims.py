"""Claimed subtasks that no row stands for."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from django_tasksets.ids import new_id
from django_tasksets.statuses import Role
from django_tasksets.store.contract import Claimed


def claimed(task_name: str = "tests.tasks.noop", **fields: Any) -> Claimed:
    """A subtask of no set, claimed for the first time."""
    row = Claimed(
        id=new_id(),
        claims=1,
        task_name=task_name,
        args="[]",
        kwargs="{}",
        options="",
        links="",
        taskset_id=None,
        role=Role.MEMBER,
        generation=1,
        queue_name="default",
        priority=0,
        claim_order=0,
        attempts=0,
        retries=0,
        crashes=0,
        deferrals=0,
        enqueued_at=timezone.now(),
        expires_at=None,
    )
    return row._replace(**fields)
