"""One call of a task, and what it came to."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asgiref.sync import async_to_sync

from .calls import Failure, RetryPlan, Seconds
from .context import Request, current_request
from .exceptions import MaxRetriesExceeded, Retry, Revoked
from .failures import describe
from .redaction import secrets
from .registry import RegisteredTask

# Celery's words, which hooks are called with.
HOOK_STATES: Final = {"SUCCESSFUL": "SUCCESS", "FAILED": "FAILURE", "RETRY": "RETRY"}


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What calling a task came to."""

    status: str
    """SUCCESSFUL, FAILED or REVOKED; or RETRY."""
    value: Any = None
    exception: BaseException | None = None
    failure: Failure | None = None
    retry: RetryPlan | None = None


def invoke(
    task: RegisteredTask, request: Request, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Attempt:
    """Call the task here with `request` current; an async one is awaited to its end.

    Whatever it raises is in the attempt, except for a Ctrl-C, which only the main thread gets.
    """
    token = current_request.set(request)
    try:
        if task.is_async:
            return _returned(async_to_sync(task)(*args, **kwargs))
        return _returned(task(*args, **kwargs))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and _in_main_thread():
            raise
        return raised(task, request, error)
    finally:
        current_request.reset(token)


async def ainvoke(
    task: RegisteredTask, request: Request, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Attempt:
    """Await the task; to be called in a context of its own.

    A cancellation is raised: only who cancelled can say what it means.
    """
    current_request.set(request)
    try:
        return _returned(await task(*args, **kwargs))
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  SystemExit too: it would end the event loop
        return raised(task, request, error)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _returned(value: Any) -> Attempt:
    if isinstance(value, Retry):
        return Attempt(status="RETRY", exception=value, retry=value.plan or RetryPlan())
    return Attempt(status="SUCCESSFUL", value=value)


def raised(task: RegisteredTask, request: Request, error: BaseException) -> Attempt:
    """What it came to that the task raised `error`."""
    if isinstance(error, Retry):
        cause = error.cause
        failure = None if cause is None else describe(cause, _hidden(request))
        plan = error.plan or RetryPlan()
        return Attempt(status="RETRY", exception=error, failure=failure, retry=plan)
    if isinstance(error, Revoked):
        return Attempt(status="REVOKED", exception=error)
    failure = describe(error, _hidden(request))
    wanted = isinstance(error, task.autoretry_for) and not isinstance(error, MaxRetriesExceeded)
    if wanted and (request.max_retries is None or request.retries < request.max_retries):
        plan = RetryPlan(delay=backoff(task, request.retries))
        return Attempt(status="RETRY", exception=error, failure=failure, retry=plan)
    return Attempt(status="FAILED", exception=error, failure=failure)


def _hidden(request: Request) -> list[str]:
    """What of the arguments is not to be told. Never raises: they are of any kind."""
    try:
        return secrets(request.task, request.args, request.kwargs)
    except Exception:  # noqa: BLE001  the arguments' own code
        return []


def backoff(task: RegisteredTask, retries: int) -> Seconds:
    """How long the next automatic retry waits: doubling, capped, with full jitter if wanted."""
    if not task.retry_backoff:
        return task.default_retry_delay
    # 2**64 seconds are beyond any cap; more would overflow a float.
    delay = min(float(task.retry_backoff) * 2 ** min(retries, 64), task.retry_backoff_max)
    return random.uniform(0, delay) if task.retry_jitter else delay


def call_hooks(task: RegisteredTask, request: Request, attempt: Attempt) -> None:
    """Call the task's hooks for an attempt, unless it was revoked: then there are none."""
    value = attempt.value if attempt.exception is None else attempt.exception
    if attempt.status in HOOK_STATES:
        task.run_hooks(HOOK_STATES[attempt.status], value, request, attempt.failure)
