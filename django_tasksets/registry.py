"""The tasks that this process knows, by name. Rows name tasks; nothing is imported for a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .calls import Failure, Seconds
from .context import Request
from .exceptions import TaskAlreadyRegistered, UnknownTask


class RegisteredTask(Protocol):
    """What the flow needs of a task. `definitions.Task` is one; adapters may be others."""

    name: str
    queue: str | None
    priority: int
    expires: Seconds | None
    max_retries: int | None
    """How often it may be retried; None is without limit."""
    default_retry_delay: Seconds
    autoretry_for: tuple[type[BaseException], ...]
    retry_backoff: bool | Seconds
    retry_backoff_max: Seconds
    retry_jitter: bool
    time_limit: Seconds | None
    soft_time_limit: Seconds | None
    atomic: bool
    is_async: bool
    """Calling it returns a coroutine."""
    has_hooks: bool
    """One of the hooks below is overridden, so it is worth calling."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def run_hooks(self, state: str, value: Any, request: Request, failure: Failure | None) -> None:
        """Call on_success, on_failure or on_retry, then after_return, with `request` current.

        `state` is Celery's word (SUCCESS, FAILURE, RETRY); `value` the return value or the
        exception. A hook that raises is logged, and the ones after it still run.
        """


_tasks: dict[str, RegisteredTask] = {}
_fallbacks: list[Callable[[str], RegisteredTask | None]] = []


def register(task: RegisteredTask) -> None:
    """Make `task` known by its name. The same definition made again (a reload) replaces it."""
    known = _tasks.get(task.name)
    if known is not None and _origin(known) != _origin(task):
        raise TaskAlreadyRegistered(
            f"{task.name!r} is registered already, by {_origin(known)}; give one of them a name="
        )
    _tasks[task.name] = task


def _origin(task: RegisteredTask) -> str:
    function: Any = getattr(task, "run", task)
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"


def get(name: str) -> RegisteredTask:
    """The task of that name; raises UnknownTask. Never imports anything."""
    task = _tasks.get(name)
    if task is not None:
        return task
    for find in _fallbacks:
        task = find(name)
        if task is not None:
            return task
    raise UnknownTask(
        f"No task named {name!r} is registered in this process. Is its module imported? Modules "
        "named `tasks` of installed apps are imported at start."
    )


def names() -> Iterator[str]:
    """The names of all registered tasks."""
    return iter(sorted(_tasks))


def unregister(name: str) -> None:
    """Forget the task of that name, if there is one."""
    _tasks.pop(name, None)


def add_fallback(find: Callable[[str], RegisteredTask | None]) -> None:
    """Ask `find` for names that are not registered: how tasks of other frameworks are known."""
    _fallbacks.append(find)
