"""Tasks: functions and classes that are registered under a name, for subtasks to call."""

from __future__ import annotations

import datetime
import sys
import uuid
from collections.abc import Iterable, Mapping
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Generic

from asgiref.sync import markcoroutinefunction

from . import conf, registry
from .calls import RetryPlan, Seconds
from .context import Request, current_request
from .exceptions import InvalidOption, MaxRetriesExceeded, OutsideSubtask, Retry
from .hooks import Hooks
from .options import refuse_impossible, refuse_unknown
from .packing import checked_options
from .results import AsyncResult as Handle
from .results import EagerResult
from .subtasks import AnyCall
from .subtasks import subtask as make_subtask
from .twins import twin

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, TypeVar

    P = ParamSpec("P", default=...)
    R = TypeVar("R", default=Any)
else:
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

# Options of one call that a task may say for all of its calls.
CALL_OPTIONS = ("queue", "priority", "expires", "max_retries", "time_limit", "soft_time_limit")


class _Setting:
    """A class attribute that is a setting, read each time, until a subclass says otherwise."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, task: object, owner: type) -> Any:
        return getattr(conf.current(), self._name)


def _setting(name: str) -> Any:
    return _Setting(name)


class _OneInstance(type):
    """Calling a task class gives its one instance."""

    def __call__(cls) -> Any:
        if cls.__dict__["abstract"]:
            raise TypeError(f"{cls.__qualname__} is abstract: derive a task from it")
        if "_instance" not in cls.__dict__:
            cls._instance = super().__call__()
            if cls._instance.is_async:
                markcoroutinefunction(cls._instance)
        return cls._instance


class Task(Hooks, Generic[P, R], metaclass=_OneInstance):
    """A task as a class: define `run`, and it is registered, with one instance for each class.

    A class with `abstract = True` of its own is a base to derive tasks from, with @task(base=) too.
    The options are class attributes; those of Celery that mean nothing here are ignored.
    """

    abstract: bool = True
    name: str = ""
    """What rows call it; by default module.class."""
    queue: str | None = None
    """None is DEFAULT_QUEUE."""
    priority: int = 0
    """From -100 to 100; higher is sooner."""
    expires: Seconds | None = None
    """A call that has not begun after so many seconds is revoked."""
    max_retries: int | None = _setting("MAX_RETRIES")
    """None is no limit."""
    default_retry_delay: Seconds = _setting("RETRY_DELAY")
    autoretry_for: tuple[type[BaseException], ...] = ()
    """These exceptions of `run` ask for a retry."""
    retry_backoff: bool | Seconds = False
    """Double the delay with each automatic retry, beginning with so many seconds (True: 1)."""
    retry_backoff_max: Seconds = 600
    retry_jitter: bool = True
    """Wait a random part of the backoff, so that what failed together does not retry together."""
    time_limit: Seconds | None = _setting("TIME_LIMIT")
    """After so many seconds the worker process is replaced."""
    soft_time_limit: Seconds | None = _setting("SOFT_TIME_LIMIT")
    """After so many seconds SoftTimeLimitExceeded is raised in `run`."""
    atomic: bool = False
    """The task's own writes and its record commit in one transaction; never for `async def`."""
    is_async: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__
        cls.abstract = own.get("abstract", False)
        cls.name = own.get("name", f"{cls.__module__}.{cls.__name__}")
        refuse_impossible(own | {"name": cls.name}, cls.__qualname__)
        checked_options({key: own[key] for key in CALL_OPTIONS if key in own}, cls.name)
        cls.is_async = iscoroutinefunction(cls.run)
        if isinstance(cls.autoretry_for, type):
            cls.autoretry_for = (cls.autoretry_for,)
        cls.autoretry_for = tuple(cls.autoretry_for)
        if cls.atomic and cls.is_async:
            raise InvalidOption(f"{cls.name}: an `async def` cannot be atomic")
        if not cls.abstract:
            registry.register(cls())

    def __repr__(self) -> str:
        return f"<task: {self.name}>"

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """What the task does; define it."""
        raise NotImplementedError(f"{self.name} does not define run()")

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it here, as a plain function."""
        result: R = self.run(*args, **kwargs)
        return result

    # Calls to be made

    def subtask(
        self,
        /,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **ex: Any,
    ) -> make_subtask:
        """A subtask that calls this task."""
        return make_subtask(self, args, kwargs, options, **ex)

    def s(self, /, *args: Any, **kwargs: Any) -> make_subtask:
        """The subtask with these arguments."""
        return make_subtask(self, args, kwargs)

    def si(self, /, *args: Any, **kwargs: Any) -> make_subtask:
        """The subtask with these arguments and no others: it ignores what is prepended."""
        return make_subtask(self, args, kwargs, {"immutable": True})

    def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Enqueue a call with these arguments. See apply_async()."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        task_id: str | uuid.UUID | None = None,
        taskset_id: str | uuid.UUID | None = None,
        countdown: Seconds | None = None,
        eta: datetime.datetime | None = None,
        expires: Seconds | datetime.datetime | None = None,
        queue: str | None = None,
        priority: int | None = None,
        link: AnyCall | Iterable[AnyCall] | None = None,
        link_error: AnyCall | Iterable[AnyCall] | None = None,
        **options: Any,
    ) -> Handle[R]:
        """Enqueue a call. It is written in the caller's transaction, and committed with it.

        It runs `countdown` seconds from now, or at `eta`, and not once it `expires`. When it
        succeeded, `link` is called with its return value first; when it failed, `link_error` with
        its handle first. With `taskset_id` it is added to that set. Also max_retries, time_limit,
        soft_time_limit and weight, which override the task's.

        Raises InvalidCall, InvalidOption, NotStorable or DuplicateId (of `task_id`); nothing is
        written then, and the caller's transaction can go on.
        """
        given = {
            "task_id": task_id,
            "taskset_id": taskset_id,
            "countdown": countdown,
            "eta": eta,
            "expires": expires,
            "queue": queue,
            "priority": priority,
            "link": link,
            "link_error": link_error,
        }
        options |= {name: value for name, value in given.items() if value is not None}
        return make_subtask(self, args, kwargs).apply_async(**options)

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Execute a call here and now, with its retries at once, its hooks and links; no rows.

        With `throw=True`, or under EAGER_PROPAGATES, a failure is raised.
        """
        return make_subtask(self, args, kwargs).apply(**options)

    def AsyncResult(self, task_id: str | uuid.UUID) -> Handle[R]:  # noqa: N802  Celery's name
        """The handle of a call of this task."""
        return Handle(task_id)

    # While it runs

    @property
    def request(self) -> Request:
        """The execution that is going on; outside of one it is empty and `called_directly`."""
        request = current_request.get()
        if request is not None and request.task == self.name:
            return request
        return Request(task=self.name, called_directly=True)

    def retry(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,  # noqa: FBT001, FBT002  as Celery
        eta: datetime.datetime | None = None,
        countdown: Seconds | None = None,
        max_retries: int | None = None,
        **ignored: Any,
    ) -> Retry:
        """Have this subtask executed again: raises Retry, or with throw=False returns it.

        By default with the same arguments, after default_retry_delay. `exc` is why; it is kept
        with the subtask's errors. When max_retries (by default the task's) are used up, raises
        `exc`, or MaxRetriesExceeded without one. Raises OutsideSubtask in a plain call.
        """
        refuse_unknown(ignored, "retry")
        request = self.request
        if request.called_directly:
            raise OutsideSubtask() from exc
        call = make_subtask(self, args, kwargs)
        checked_options(
            {"countdown": countdown, "eta": eta, "max_retries": max_retries}, f"{self.name}: retry"
        )
        limit = request.max_retries if max_retries is None else max_retries
        if limit is not None and request.retries >= limit:
            raise exc or MaxRetriesExceeded(f"{self.name} has been retried {limit} times")
        cause = exc or sys.exception()
        plan = RetryPlan(
            args=None if args is None else call.args,
            kwargs=None if kwargs is None else call.kwargs,
            delay=countdown,
            eta=eta,
        )
        retry = Retry(f"Retry {request.retries + 1} of {self.name}", cause=cause, plan=plan)
        if throw:
            raise retry from cause
        return retry

    adelay = twin(delay)
    aapply_async = twin(apply_async)
    aapply = twin(apply)
