"""Applies a whole task set here and now, without rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .calls import Call, SetSpec
from .exceptions import SubtaskRevoked
from .ids import new_id
from .results import EagerResult
from .setresults import TaskSetResult
from .statuses import SubtaskStatus
from .subtasks import subtask


def apply_set(spec: SetSpec, calls: Sequence[subtask]) -> TaskSetResult:
    """Execute the members one after the other, then the callbacks. See TaskSet.apply()."""
    limit = math.inf if spec.max_failures is None else spec.max_failures
    if spec.max_failures_percent is not None:
        limit = len(calls) * spec.max_failures_percent / 100
    results: list[EagerResult[Any]] = []
    failures = 0
    for call in calls:
        if failures > limit:
            results.append(_revoked("too many failures"))
            continue
        results.append(call.apply(taskset_id=spec.id))
        failures += results[-1].failed()
    members = TaskSetResult(spec.id, results)
    return TaskSetResult(spec.id, results, callbacks=_call_back(spec, members))


def _call_back(spec: SetSpec, members: TaskSetResult) -> dict[str, EagerResult[Any]]:
    """Execute the callbacks that are due, in their order."""
    callbacks: dict[str, EagerResult[Any]] = {}
    if spec.on_success is not None:
        callbacks["on_success"] = (
            _called(spec, spec.on_success, members.join())
            if members.successful()
            else _revoked("not needed")
        )
    if spec.on_failure is not None:
        callbacks["on_failure"] = (
            _revoked("not needed")
            if members.successful()
            else _called(spec, spec.on_failure, members)
        )
    if spec.on_finish is not None:
        callbacks["on_finish"] = _called(spec, spec.on_finish, members)
    return callbacks


def _called(spec: SetSpec, call: Call, first: Any) -> EagerResult[Any]:
    return subtask(call).apply((first,), taskset_id=spec.id)


def _revoked(reason: str) -> EagerResult[Any]:
    return EagerResult(new_id(), SubtaskRevoked(reason), SubtaskStatus.REVOKED)
