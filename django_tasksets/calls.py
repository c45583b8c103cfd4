"""The plain data that travels between the API and the flow."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

Seconds = float


class Call(TypedDict):
    """One call to make: what `dict(subtask(...))` is. All four keys are always there."""

    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]


class Options(TypedDict, total=False):
    """What `options` of a call may say. Other keys raise InvalidOption, but for IGNORED_OPTIONS."""

    task_id: str | uuid.UUID
    queue: str
    priority: int
    countdown: Seconds
    eta: datetime.datetime
    expires: Seconds | datetime.datetime
    max_retries: int | None
    time_limit: Seconds | None
    soft_time_limit: Seconds | None
    weight: int
    immutable: bool
    link: Call | Sequence[Call]
    link_error: Call | Sequence[Call]


class IgnoredOptions(TypedDict, total=False):
    """Options of Celery 2 that mean nothing on a database queue: accepted, and without effect."""

    accept_magic_kwargs: object
    acks_late: object
    app: object
    autoregister: object
    backend: object
    connect_timeout: object
    connection: object
    delivery_mode: object
    error_whitelist: object
    exchange: object
    exchange_type: object
    ignore_result: object
    immediate: object
    mandatory: object
    publisher: object
    queues: object
    rate_limit: object
    router: object
    routing_key: object
    send_error_emails: object
    serializer: object
    store_errors_even_if_ignored: object
    task_name: object
    track_started: object


IGNORED_OPTIONS = IgnoredOptions.__optional_keys__


class HasKey(Protocol):
    """Anything with a primary key: a model instance."""

    pk: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSpec:
    """Everything about a set but its members."""

    id: uuid.UUID
    name: str = ""
    metadata: Any = None
    owner: HasKey | None = None
    related: HasKey | None = None
    on_success: Call | None = None
    on_failure: Call | None = None
    on_finish: Call | None = None
    max_failures: int | None = None
    """More failed members than this revoke the rest; 0 is fail-fast, None is no limit."""
    max_failures_percent: float | None = None
    """The same as a share of a sealed total."""
    origin: uuid.UUID | None = None
    """The set of which this one is a rerun."""
    is_new: bool = False
    """The id was made for this set, so there is no row that has it."""
    sealed: bool = True
    """False while subtasks may still be added: the set cannot finish before it is sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPlan:
    """How a task that called retry() wants to be executed again; None is "as it was"."""

    args: tuple[Any, ...] | None = None
    kwargs: Mapping[str, Any] | None = None
    delay: Seconds | None = None
    """Seconds from now; the task's default delay or its backoff, if this and eta are None."""
    eta: datetime.datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why one execution of a subtask did not succeed; stored in `errors`, one JSON object each."""

    exception_class: str
    message: str
    traceback: str = ""
    fingerprint: str = ""
    args: str | None = None
    """The exception's own arguments, encoded, where they could be stored."""
    extra: Mapping[str, Any] = field(default_factory=dict)
