"""Everything that this package raises on purpose. A class's docstring is its default message."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calls import RetryPlan


class TaskSetsError(Exception):
    """Something went wrong in django-tasksets. Do not raise directly."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or (inspect.cleandoc(self.__doc__ or ""),)))


# What a caller handed in


class InvalidCall(TaskSetsError, TypeError):
    """A subtask is a dict with the keys task, args, kwargs and options; make it with subtask()."""


class InvalidOption(TaskSetsError, TypeError):
    """An option has an unknown name, or a value of the wrong type or outside its range."""


class InvalidId(TaskSetsError, ValueError):
    """Ids are UUIDs, given as a uuid.UUID or as a string."""


class NotStorable(TaskSetsError, TypeError):
    """A value cannot be stored as JSON and come back equal.

    `path` says where it sits in what was given, for example `args[1]["when"]`.
    """

    def __init__(self, message: str = "", path: str = "") -> None:
        super().__init__(*([f"{path}: {message}" if path else message] if message else []))
        self.path = path


class UnknownTask(TaskSetsError, LookupError):
    """No task of that name is registered here. Is its module imported? Modules named `tasks` of
    installed apps are found without help."""


class TaskAlreadyRegistered(TaskSetsError, ValueError):
    """Another task is registered under that name already; give one of them a `name=`."""


# What the database answered


class DuplicateId(TaskSetsError, ValueError):
    """A subtask or task set with that id exists already. Nothing was written."""


class UnknownId(TaskSetsError, LookupError):
    """No subtask or task set has that id, or it has been pruned; waiting would never end."""


class AlreadyApplied(TaskSetsError, ValueError):
    """A task set with that id is applied already, or was saved with other subtask ids."""


class TaskSetSealed(TaskSetsError, ValueError):
    """Subtasks can be added inside `with taskset.open()`, or from within an unfinished subtask of
    the same set; this set takes no more. Apply a new TaskSet instead."""


class StillUnfinished(TaskSetsError, ValueError):
    """The set or one of its callbacks is unfinished; revoke it, or wait, before deleting it."""


class UnreadableValue(TaskSetsError, ValueError):
    """A stored value cannot be read here: its class is not imported or has changed, or its text
    was not written by this package."""


# What came of a subtask


class SubtaskFailed(TaskSetsError):
    """A subtask failed, and its own exception class is not imported here.

    `exception_class` is the dotted path of that class and `remote_traceback` its traceback.
    """

    exception_class: str = ""
    remote_traceback: str = ""


class SubtaskRevoked(TaskSetsError):
    """The subtask was revoked before it could succeed."""

    remote_traceback: str = ""


class ResultTimeout(TaskSetsError, TimeoutError):
    """The time limit passed before the result was there. The subtasks go on."""


class WouldDeadlock(TaskSetsError, RuntimeError):
    """Waiting here could wait for ever: inside a running subtask the worker that waits may be the
    one that is needed, inside an open transaction nobody can see the subtasks yet. Use a callback
    (on_success=), or wait after the transaction."""


# What a running task may raise


class Retry(TaskSetsError):
    """The subtask asked to be executed again. Raised by Task.retry(); let it pass.

    `plan` says with which arguments and when; `cause` is the exception that made it ask.
    """

    def __init__(
        self,
        message: str = "",
        *,
        cause: BaseException | None = None,
        plan: RetryPlan | None = None,
    ) -> None:
        super().__init__(*([message] if message else []))
        self.cause = cause
        self.plan = plan


class OutsideSubtask(TaskSetsError, RuntimeError):
    """Only a subtask that is being executed can be retried: retry() was called in a plain call."""


class MaxRetriesExceeded(TaskSetsError):
    """The subtask asked for a retry and has none left."""


class SoftTimeLimitExceeded(TaskSetsError, TimeoutError):
    """The task ran longer than its soft_time_limit. Clean up and raise."""


class Revoked(TaskSetsError):
    """Raise this in a task that saw `request.revoked`: it ends as REVOKED instead of FAILED."""
