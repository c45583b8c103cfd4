"""Task sets on your own database: fan out subtasks, watch them, get one callback at the end."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decorators import task
    from .definitions import Task
    from .exceptions import (
        AlreadyApplied,
        DuplicateId,
        InvalidCall,
        InvalidId,
        InvalidOption,
        MaxRetriesExceeded,
        NotStorable,
        OutsideSubtask,
        ResultTimeout,
        Retry,
        Revoked,
        SoftTimeLimitExceeded,
        StillUnfinished,
        SubtaskFailed,
        SubtaskRevoked,
        TaskAlreadyRegistered,
        TaskSetSealed,
        TaskSetsError,
        UnknownId,
        UnknownTask,
        UnreadableValue,
        WouldDeadlock,
    )
    from .ids import gen_unique_id
    from .progress import Progress
    from .results import AsyncResult, EagerResult
    from .setresults import TaskSetResult
    from .statuses import SubtaskStatus, TaskSetStatus
    from .subtasks import maybe_subtask, subtask
    from .tasksets import TaskSet

__version__ = "0.1.0"

__all__ = [
    "AlreadyApplied",
    "AsyncResult",
    "DuplicateId",
    "EagerResult",
    "InvalidCall",
    "InvalidId",
    "InvalidOption",
    "MaxRetriesExceeded",
    "NotStorable",
    "OutsideSubtask",
    "Progress",
    "ResultTimeout",
    "Retry",
    "Revoked",
    "SoftTimeLimitExceeded",
    "StillUnfinished",
    "SubtaskFailed",
    "SubtaskRevoked",
    "SubtaskStatus",
    "Task",
    "TaskAlreadyRegistered",
    "TaskSet",
    "TaskSetResult",
    "TaskSetSealed",
    "TaskSetStatus",
    "TaskSetsError",
    "UnknownId",
    "UnknownTask",
    "UnreadableValue",
    "WouldDeadlock",
    "gen_unique_id",
    "maybe_subtask",
    "subtask",
    "task",
]

# Where names come from that are no exceptions. Nothing is imported before it is asked for:
# Django imports this package before models can be.
_MODULES = {
    "AsyncResult": "results",
    "EagerResult": "results",
    "Progress": "progress",
    "SubtaskStatus": "statuses",
    "Task": "definitions",
    "TaskSet": "tasksets",
    "TaskSetResult": "setresults",
    "TaskSetStatus": "statuses",
    "gen_unique_id": "ids",
    "maybe_subtask": "subtasks",
    "subtask": "subtasks",
    "task": "decorators",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES.get(name, 'exceptions')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
