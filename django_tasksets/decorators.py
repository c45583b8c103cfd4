"""The @task decorator: makes the one instance of a task class out of a function."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial, update_wrapper
from types import FunctionType
from typing import (
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    overload,
)

from .calls import IGNORED_OPTIONS, IgnoredOptions, Seconds
from .definitions import Task
from .exceptions import InvalidOption
from .options import refuse_unknown

P = ParamSpec("P")
R = TypeVar("R")


class TaskOptions(IgnoredOptions, total=False):
    """What @task takes: see the attributes of Task. Celery's other options have no effect."""

    base: type[Task]
    name: str
    queue: str | None
    priority: int
    expires: Seconds | None
    max_retries: int | None
    default_retry_delay: Seconds
    autoretry_for: tuple[type[BaseException], ...]
    retry_backoff: bool | Seconds
    retry_backoff_max: Seconds
    retry_jitter: bool
    time_limit: Seconds | None
    soft_time_limit: Seconds | None
    atomic: bool


class _Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, Any]], /) -> Task[P, Any]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class _BindingDecorator(Protocol):
    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, Any]], /
    ) -> Task[P, Any]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, Any]], /) -> Task[P, Any]: ...
@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(*, bind: Literal[True], **options: Unpack[TaskOptions]) -> _BindingDecorator: ...
@overload
def task(*, bind: Literal[False] = False, **options: Unpack[TaskOptions]) -> _Decorator: ...
def task(function: Any = None, /, *, bind: bool = False, **options: Any) -> Any:
    """Make a task of a function, and register it under `name` (by default module.function).

    With bind=True the function gets the task as its first argument. `base` is a class to derive
    the task from, for hooks or shared attributes. Raises InvalidOption, TaskAlreadyRegistered.
    """
    if function is None:
        return partial(_make, bind=bind, options=options)
    return _make(function, bind=bind, options=options)


def _make(function: Any, /, *, bind: bool, options: dict[str, Any]) -> Task:
    if not isinstance(function, FunctionType):
        raise InvalidOption(f"@task decorates functions, not {function!r}; options are named")
    known = TaskOptions.__optional_keys__ - IGNORED_OPTIONS
    refuse_unknown(options, f"@task on {function.__qualname__}", known=known)
    base: Any = options.get("base", Task)
    if not (isinstance(base, type) and issubclass(base, Task)):
        raise InvalidOption(f"@task on {function.__qualname__}: base={base!r} is not a Task class")
    namespace = {name: options[name] for name in known & options.keys() if name != "base"}
    namespace |= {
        "run": function if bind else staticmethod(function),
        "abstract": False,
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
    }
    make: Any = type(base)
    made: Task = make(function.__name__, (base,), namespace)()
    update_wrapper(made, function)
    return made
