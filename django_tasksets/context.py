"""What is being executed right now: the request that a task sees as `self.request`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


def _never() -> bool:
    return False


@dataclass(slots=True, kw_only=True)
class Request:
    """One execution of one subtask, as the task sees it."""

    task: str = ""
    subtask_id: uuid.UUID | None = None
    taskset_id: uuid.UUID | None = None
    # Not in its repr, which ends up in logs.
    args: Sequence[Any] = field(default=(), repr=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    retries: int = 0
    """How often the task has been retried before this execution."""
    max_retries: int | None = None
    attempt: int = 1
    """The number of this execution, from 1; crashes count, give-backs do not."""
    generation: int = 1
    queue: str = ""
    hostname: str = ""
    worker_id: uuid.UUID | None = None
    is_eager: bool = False
    """Executed by apply() or under ALWAYS_EAGER, not by a worker."""
    is_revoked: Callable[[], bool] = _never
    called_directly: bool = False

    @property
    def id(self) -> str | None:
        """The subtask's id."""
        return None if self.subtask_id is None else str(self.subtask_id)

    @property
    def taskset(self) -> str | None:
        """The id of the task set, if the subtask is a member of one."""
        return None if self.taskset_id is None else str(self.taskset_id)

    @property
    def revoked(self) -> bool:
        """Somebody asked for this subtask to be revoked; end when it suits."""
        return self.is_revoked()

    @property
    def idempotency_key(self) -> str | None:
        """The same for every attempt of this subtask: hand it to services that dedupe by key."""
        return self.id


current_request: ContextVar[Request | None] = ContextVar("tasksets_request", default=None)
"""The request of the subtask that runs in this context; None outside of any."""
