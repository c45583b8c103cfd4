"""What a task class may do after each of its executions."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .calls import Failure
from .context import Request, current_request
from .exceptions import InvalidOption

logger = logging.getLogger("django_tasksets")

NAMES: Final = ("on_success", "on_failure", "on_retry", "after_return")


@dataclass(frozen=True, slots=True)
class ExceptionInfo:
    """What hooks are told of an exception besides the exception itself (Celery's `einfo`)."""

    exception: BaseException | None
    traceback: str

    def __str__(self) -> str:
        return self.traceback


class Hooks:
    """Override any of the four. They are called in the process that executed the subtask, once
    what came of it is committed, with `self.request` set. One that raises is logged: it changes
    nothing, and the others are still called. A task that overrides none pays nothing.
    """

    has_hooks: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = [name for name in NAMES if getattr(cls, name) is not getattr(Hooks, name)]
        for name in own:
            if inspect.iscoroutinefunction(getattr(cls, name)):
                raise InvalidOption(f"{cls.__qualname__}.{name}: hooks cannot be `async def`")
        cls.has_hooks = bool(own)

    def on_success(
        self, retval: Any, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """The task returned, and its value is stored."""

    def on_failure(
        self,
        exc: BaseException,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo,
    ) -> None:
        """The task failed for good."""

    def on_retry(
        self,
        exc: BaseException,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo,
    ) -> None:
        """The task is to be executed again; `exc` is why, or the Retry itself."""

    def after_return(
        self,
        status: str,
        retval: Any,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo | None,
    ) -> None:
        """Called last, whichever of the others was; `status` is SUCCESS, FAILURE or RETRY, and
        `retval` the return value or the exception."""

    def run_hooks(self, state: str, value: Any, request: Request, failure: Failure | None) -> None:
        """Call the hooks for one execution. See registry.RegisteredTask."""
        call = (request.id, request.args, request.kwargs)
        einfo = None
        if state != "SUCCESS":
            einfo = ExceptionInfo(value, "" if failure is None else failure.traceback)
        token = current_request.set(request)
        try:
            if state == "SUCCESS":
                self._guard(self.on_success, value, *call)
            elif state == "RETRY":
                self._guard(self.on_retry, value, *call, einfo)
            else:
                self._guard(self.on_failure, value, *call, einfo)
            self._guard(self.after_return, state, value, *call, einfo)
        finally:
            current_request.reset(token)

    def _guard(self, hook: Callable[..., None], *args: Any) -> None:
        try:
            hook(*args)
        except Exception:
            logger.exception("hook failed hook=%s.%s", type(self).__qualname__, hook.__name__)
