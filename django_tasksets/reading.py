"""Reads what came of a subtask: its return value, or the exception that it ended with."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from . import codec, conf
from .arguments import returned
from .exceptions import SubtaskFailed, SubtaskRevoked, UnknownId, UnreadableValue
from .models import SubtaskRecord
from .statuses import FINISHED, SubtaskStatus, subtask_status
from .store import get_store

_BUILTIN_INIT = type(object.__init__)
"""What an `__init__` is that is not written in Python."""


class Reading(Protocol):
    """What has come of a subtask so far."""

    @property
    def status(self) -> str: ...
    @property
    def retries(self) -> int: ...
    @property
    def traceback(self) -> str | None: ...
    def value(self) -> Any:
        """The return value, or the exception; None while there is neither. Raises UnreadableValue
        for what cannot be read, and UnknownId for what was forgotten."""


def is_finished(reading: Reading | None) -> bool:
    """Whether there is such a subtask, and its status is final, or none at all: nothing more is to
    be waited for then."""
    if reading is None:
        return False
    return reading.status in FINISHED or reading.status not in SubtaskStatus.values


def settle(reading: Reading, *, propagate: bool) -> Any:
    """The return value of what is finished; an exception is raised, or else returned."""
    try:
        value = reading.value()
    except (UnknownId, UnreadableValue) as error:
        if propagate:
            raise
        return error
    if propagate and reading.status != SubtaskStatus.SUCCESSFUL:
        raise value
    return value


class Row(NamedTuple):
    """The part of a subtask's row that is a Reading: its id, and RESULT_FIELDS."""

    id: uuid.UUID
    position: int | None
    status: str
    retries: int
    reason: str
    return_value: str | None
    errors: str

    @property
    def traceback(self) -> str | None:
        """The traceback of the last execution that did not succeed."""
        return self._last_error().get("traceback") or None

    def value(self) -> Any:
        """See Reading."""
        if self.status == SubtaskStatus.SUCCESSFUL:
            return returned(self.id, self.return_value)
        status = subtask_status(self.status)
        if status == SubtaskStatus.REVOKED:
            return self._revoked()
        return self._failed() if status == SubtaskStatus.FAILED else None

    def _last_error(self) -> dict[str, Any]:
        line = self.errors.rstrip("\n").rpartition("\n")[2]
        error = codec.decode(line) if line else {}
        texts = ("exception_class", "message", "traceback", "args")
        if not isinstance(error, dict) or not all(
            isinstance(error.get(name), str | None) for name in texts
        ):
            raise UnreadableValue(f"The errors of subtask {self.id} were not written by a worker")
        return error

    def _revoked(self) -> Exception:
        because = f": {self.reason}" if self.reason else ""
        exception = SubtaskRevoked(f"Subtask {self.id} was revoked{because}")
        exception.remote_traceback = self.traceback or ""
        return exception

    def _failed(self) -> Exception:
        error = self._last_error()
        path, traceback = error.get("exception_class") or "", error.get("traceback") or ""
        exception = _own_exception(path, error.get("args"), traceback)
        if exception is None:
            what = ": ".join(part for part in (path, error.get("message")) if part)
            exception = SubtaskFailed(what or self.reason or f"Subtask {self.id} failed")
            exception.exception_class = path
            exception.remote_traceback = traceback
        if traceback:
            exception.add_note(f"In subtask {self.id}:\n{traceback}")
        return exception


def read(subtask_id: uuid.UUID) -> Row | None:
    """What has come of one subtask; None for an id that is unknown."""
    row = get_store().result_row(subtask_id)
    return None if row is None else Row(subtask_id, *row)


def readings(**which: Any) -> Iterator[Row]:
    """What has come of the subtasks that `which` filters, by position."""
    records = SubtaskRecord.objects.using(conf.current().DATABASE).filter(**which)
    return (Row(*row) for row in records.order_by("position").values_list(*Row._fields))


def missing(subtask_id: object = "") -> UnknownId:
    """What stands for a subtask that is not there."""
    return UnknownId(
        f"A subtask {subtask_id} is not there: it was not applied, its transaction is not "
        "committed, or it was forgotten or pruned"
    )


def _own_exception(path: str, args: str | None, traceback: str) -> Exception | None:
    """The task's own exception made again, if its class is imported here and that works.

    An `__init__` that is written in Python is not called, since nobody knows what it would do
    with these arguments; those of Python itself keep some of them elsewhere than in `args`.
    """
    cls = _find_class(path)
    if cls is None or args is None:
        return None
    try:
        decoded = tuple(codec.decode(args))
        exception = cls.__new__(cls, *decoded)
        if isinstance(cls.__init__, _BUILTIN_INIT):
            cls.__init__(exception, *decoded)
        else:
            exception.args = decoded
        exception.remote_traceback = traceback  # type: ignore[attr-defined]
        str(exception)  # one that needs what __init__ would have set is of no use
    except Exception:  # noqa: BLE001  it is somebody else's class
        return None
    return exception


def _find_class(path: str) -> type[Exception] | None:
    """The exception class at a dotted path, in a module that is imported already.

    Reads `__dict__` only: a module's `__getattr__` might import.
    """
    parts = path.split(".")
    lengths = range(len(parts) - 1, 0, -1)
    module = next((name for n in lengths if (name := ".".join(parts[:n])) in sys.modules), "")
    found: Any = sys.modules.get(module)
    for part in parts[module.count(".") + 1 :]:
        found = getattr(found, "__dict__", {}).get(part)
    if not isinstance(found, type) or not issubclass(found, Exception):
        return None
    # These cannot be raised out of the generators and futures in which results are waited for.
    return None if issubclass(found, StopIteration | StopAsyncIteration) else found
