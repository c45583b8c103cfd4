"""A subtask: one call to make, as a dict that survives JSON."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

from . import codec, conf, enqueueing, execution, registry
from .calls import Call
from .context import Request
from .exceptions import InvalidCall
from .ids import new_id, parse_id
from .packing import check_call, checked_options
from .redaction import HIDDEN, Places, mask, redacted, secrets
from .registry import RegisteredTask
from .results import AsyncResult, EagerResult
from .statuses import SubtaskStatus
from .twins import twin

V = TypeVar("V")

_WHEN = frozenset({"countdown", "eta"})

AnyCall: TypeAlias = Mapping[str, object]
"""A call as it is handed in: a subtask, or a dict like one."""


class _Key(Generic[V]):
    """A key of the dict that is an attribute, too."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, call: None, owner: type) -> _Key[V]: ...
    @overload
    def __get__(self, call: subtask, owner: type) -> V: ...
    def __get__(self, call: subtask | None, owner: type) -> V | _Key[V]:
        if call is None:
            return self
        value: V = call[self.name]
        return value

    def __set__(self, call: subtask, value: V) -> None:
        call[self.name] = value


class subtask(dict[str, Any]):  # noqa: N801  it is written as a call, like the task it stands for
    """One call to make: a dict of `task`, `args`, `kwargs` and `options`, which are attributes too.

    `task` is a task, or the name of one that need not be known here before it is applied. Given a
    dict, as it comes out of JSON, this is the call in it, and all other arguments are ignored.
    Keyword arguments beyond the four are added to `kwargs`. Raises InvalidCall.

    Calls are equal if their four values are, tuples and lists being the same.
    """

    task = _Key[str]()
    """The task's name."""
    args = _Key[tuple[Any, ...]]()
    kwargs = _Key[dict[str, Any]]()
    options = _Key[dict[str, Any]]()
    """What apply_async() takes besides the arguments: queue, priority, countdown, ..."""

    def __init__(
        self,
        /,
        task: Any = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **ex: Any,
    ) -> None:
        if isinstance(task, Mapping):
            call = dict(task)
            check_call(call, "subtask")
            super().__init__(
                task=call["task"],
                args=tuple(call["args"]),
                kwargs=dict(call["kwargs"]),
                options=dict(call["options"]),
            )
            return
        name, defaults = _named(task)
        if (kwargs is None or kwargs == {}) and options is None and not ex:
            # Most are like that, and most of many.
            super().__init__(task=name, args=_several(args, name), kwargs={}, options=defaults)
            return
        super().__init__(
            task=name,
            args=_several(args, name),
            kwargs={**_named_ones(kwargs, "kwargs", name), **ex},
            options={**defaults, **_named_ones(options, "options", name)},
        )

    def __repr__(self) -> str:
        names = redacted()
        places = Places(self.task, names)
        given = [HIDDEN if n in places else repr(arg) for n, arg in enumerate(self.args)]
        given += [
            f"{name}={HIDDEN if name.lower() in names else repr(value)}"
            for name, value in self.kwargs.items()
        ]
        hidden = secrets(self.task, self.args, self.kwargs) if names else []
        given = [mask(text, hidden) for text in given]
        return f"<subtask: {self.task}({', '.join(given)})>"

    def __eq__(self, other: object) -> bool:
        return _as_json(self) == _as_json(other) if isinstance(other, dict) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    @property
    def type(self) -> RegisteredTask:
        """The task itself; raises UnknownTask."""
        return registry.get(self.task)

    def clone(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> subtask:
        """This call with more to it: given arguments come first, given keyword arguments and
        options win. An immutable one (si) takes no arguments."""
        if self.options.get("immutable"):
            args = kwargs = None
        stored = self.options
        if not _WHEN.isdisjoint(options):  # One of them says when, in place of the other.
            stored = {name: value for name, value in stored.items() if name not in _WHEN}
        return subtask(
            self.task,
            (*_several(args, self.task), *self.args),
            {**self.kwargs, **_named_ones(kwargs, "kwargs", self.task)},
            {**stored, **options},
        )

    def delay(self, /, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """Enqueue it, with these arguments before its own. See apply_async()."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Enqueue it with what is given added as by clone(); written in the caller's transaction.

        With `taskset_id` it is added to that set, as by TaskSetResult.add(). Raises InvalidCall,
        InvalidOption, NotStorable, UnknownTask or DuplicateId; nothing is written then, and the
        caller's transaction can go on.
        """
        is_as_it_is = args is None and kwargs is None and not options and _is_regular(self)
        call = self if is_as_it_is else self.clone(args, kwargs, **options)
        taskset_id = call.options.pop("taskset_id", None)
        if taskset_id is None:
            return AsyncResult(enqueueing.enqueue(cast(Call, call)))
        return AsyncResult(enqueueing.add(parse_id(taskset_id), [cast(Call, call)])[0])

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[Any]:
        """Execute it here and now, with its retries at once, its hooks and its links; no rows.

        With `throw=True`, or under EAGER_PROPAGATES, a failure is raised. Raises UnknownTask.
        """
        throw = options.pop("throw", conf.current().EAGER_PROPAGATES)
        result = _apply(self.clone(args, kwargs, **options))
        if throw:
            result.get()
        return result

    adelay = twin(delay)
    aapply_async = twin(apply_async)
    aapply = twin(apply)


def maybe_subtask(value: Any) -> Any:
    """A dict as the subtask in it; anything else, None too, as it is."""
    return subtask(value) if isinstance(value, dict) and not isinstance(value, subtask) else value


def _several(args: Any, where: str) -> tuple[Any, ...]:
    """Positional arguments as they may be given: any iterable, but a text is one of them."""
    if type(args) is tuple:
        return args
    if args is None:
        return ()
    if isinstance(args, str | bytes | Mapping) or not isinstance(args, Iterable):
        raise InvalidCall(f"{where}: args={args!r:.200} is not a list or a tuple")
    return tuple(args)


def _named_ones(given: Any, what: str, where: str) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidCall(f"{where}: {what}={given!r:.200} is not a dict")
    return given


def _named(task: Any) -> tuple[str, dict[str, Any]]:
    """The name of a task, and the options that the object itself stands for."""
    if isinstance(task, str):
        return task, {}
    path = getattr(task, "module_path", None)
    if isinstance(path, str):
        # A task of django.tasks: using() has made it say where and when it is to run.
        options = {"queue": task.queue_name, "priority": task.priority, "eta": task.run_after}
        return path, {name: value for name, value in options.items() if value is not None}
    name = getattr(task, "name", None)
    if isinstance(name, str) and name and callable(task):
        return name, {}
    raise InvalidCall(
        f"{task!r} is not a task: give the name of one, or a function decorated with @task"
    )


def _is_regular(call: subtask) -> bool:
    """Whether it is what clone() would make of it, and can be used in its place."""
    kinds = [type(value) for value in call.values()]
    return (
        type(call) is subtask
        and list(call) == ["task", "args", "kwargs", "options"]
        and kinds == [str, tuple, dict, dict]
        and "taskset_id" not in call["options"]
    )


def _as_json(value: Any) -> Any:
    """`value` with tuples as the lists that they are in JSON."""
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return value


def _apply(call: subtask) -> EagerResult[Any]:
    task, options = call.type, dict(call.options)
    taskset_id = options.pop("taskset_id", None)
    checked_options(options, f"apply {call.task}")
    task_id = options.get("task_id")
    request = Request(
        task=call.task,
        subtask_id=new_id() if task_id is None else parse_id(task_id),
        taskset_id=None if taskset_id is None else parse_id(taskset_id),
        args=call.args,
        kwargs=call.kwargs,
        max_retries=options.get("max_retries", task.max_retries),
        queue=options.get("queue") or task.queue or conf.current().DEFAULT_QUEUE,
        hostname=socket.gethostname(),
        is_eager=True,
    )
    attempt = execution.apply_inline(task, request, call.args, call.kwargs)
    trace = None if attempt.failure is None else attempt.failure.traceback
    value = attempt.value if attempt.exception is None else attempt.exception
    result = EagerResult[Any](cast(uuid.UUID, request.subtask_id), value, attempt.status, trace)
    if result.status == SubtaskStatus.SUCCESSFUL:
        _apply_links(options.get("link"), value)
    elif result.status == SubtaskStatus.FAILED:
        _apply_links(options.get("link_error"), result)
    return result


def _apply_links(links: Any, first: Any) -> None:
    for link in [links] if isinstance(links, Mapping) else links or ():
        subtask(link).apply((first,))


codec.register_type(subtask, "subtask", dict, subtask)
