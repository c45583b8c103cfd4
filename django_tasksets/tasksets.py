"""Task sets that are about to be applied."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, MutableSequence
from inspect import GEN_CLOSED, getgeneratorstate, isgenerator
from types import TracebackType
from typing import Any, cast

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import Error
from django.db.models import Model

from . import bulk, control, enqueueing
from .calls import Call, HasKey, SetSpec
from .checking import is_int
from .eager import apply_set
from .exceptions import AlreadyApplied, InvalidCall, InvalidOption
from .ids import new_id, parse_id
from .options import refuse_unknown
from .packing import check_call
from .setresults import TaskSetResult
from .subtasks import AnyCall, subtask
from .twins import in_thread, twin

logger = logging.getLogger("django_tasksets")

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?) ?%", re.ASCII)
_OPTIONS = frozenset(
    {
        "on_success", "callback", "on_failure", "on_finish", "name", "metadata", "owner", "related",
        "fail_fast", "max_failures",
    }
)  # fmt: skip


class TaskSet(MutableSequence[Any]):
    """Subtasks that are applied together, counted together, and end together.

    `tasks` is any iterable of subtasks. A list or tuple is copied, and the set can be appended to
    and looked at like a list; anything else stays lazy: it is drained by apply_async(), and never
    held in memory as a whole, unless the set is used as a list before that.

    The callbacks are subtasks too. `on_success` (or `callback`) is called with the list of results
    first, once all members succeeded; `on_failure` with the TaskSetResult first, once all have
    finished and not all succeeded; `on_finish` likewise, after either. `max_failures`, a number or
    a share such as "5%", revokes the rest once more members failed; fail_fast=True is 0.

    `name`, `metadata` (any value that can be stored), `owner` (a user; an anonymous one is none)
    and `related` (a saved model instance) are kept with the set. Raises InvalidCall, InvalidOption.
    """

    def __init__(
        self,
        tasks: Iterable[AnyCall] | None = None,
        *arglist: Any,
        on_success: AnyCall | None = None,
        callback: AnyCall | None = None,
        on_failure: AnyCall | None = None,
        on_finish: AnyCall | None = None,
        name: str | None = "",
        metadata: Any = None,
        owner: HasKey | None = None,
        related: HasKey | None = None,
        fail_fast: bool = False,
        max_failures: int | str | None = None,
        **ignored: Any,
    ) -> None:
        refuse_unknown(ignored, "TaskSet", known=_OPTIONS)
        if on_success is not None and callback is not None:
            raise InvalidOption("TaskSet: on_success and callback are the same; give one of them")
        if fail_fast and max_failures is not None:
            raise InvalidOption("TaskSet: fail_fast is max_failures=0; give one of them")
        self._given = () if tasks is None else _iterable(tasks, arglist)
        self._list = list(self._given) if isinstance(self._given, list | tuple) else None
        self._is_drained = False
        self._applied: int | None = None
        self.on_success = _callback("on_success", on_success if callback is None else callback)
        self.on_failure = _callback("on_failure", on_failure)
        self.on_finish = _callback("on_finish", on_finish)
        self.name = "" if name is None else str(name)
        self.metadata, self.owner, self.related = metadata, owner, related
        limit = 0 if fail_fast else max_failures
        self.max_failures, self.max_failures_percent = _limits(limit)

    def __repr__(self) -> str:
        size = "lazy" if self._list is None else f"{len(self._list)} subtasks"
        return f"<TaskSet: {self.name or size}>"

    # As a list

    @property
    def tasks(self) -> list[Any]:
        """The subtasks as a list. What was lazy is drained into it."""
        if self._list is None:
            self._list = list(self._drained())
        return self._list

    @property
    def total(self) -> int:
        """How many subtasks there are; of a lazy set that was applied, how many there were."""
        return len(self.tasks) if self._list is not None or not self._applied else self._applied

    def __len__(self) -> int:
        return self.total

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tasks)

    def __getitem__(self, index: Any) -> Any:
        return self.tasks[index]

    def __setitem__(self, index: Any, call: Any) -> None:
        self.tasks[index] = call

    def __delitem__(self, index: Any) -> None:
        del self.tasks[index]

    def insert(self, index: int, value: AnyCall) -> None:
        """Add a subtask before the one at `index`."""
        self.tasks.insert(index, value)

    # Applying it

    def apply_async(
        self, *, taskset_id: str | uuid.UUID | None = None, **ignored: Any
    ) -> TaskSetResult:
        """Enqueue the set, its members and callbacks: all or none, in the caller's transaction.

        A set that was saved under `taskset_id` becomes this one, if it lists the same subtasks.
        An empty set finishes at once, successfully. Raises AlreadyApplied, DuplicateId,
        InvalidCall, InvalidOption, NotStorable or UnknownTask; nothing is written then, and the
        caller's transaction can go on.
        """
        refuse_unknown(ignored, "apply_async", known={"taskset_id"})
        spec = self._spec(taskset_id, sealed=True)
        self._applied = enqueueing.enqueue_set(spec, self._calls())
        return TaskSetResult(spec.id)

    @staticmethod
    def apply_all(tasksets: Iterable[TaskSet]) -> list[TaskSetResult]:
        """Enqueue many sets at once: all or none, in the caller's transaction; their results.

        `tasksets` may be lazy, and so may each of them: they are drained one after the other. They
        are written together, at a fraction of what apply_async() takes for each. Raises what that
        does; nothing is written then, and the caller's transaction can go on.
        """
        if isinstance(tasksets, TaskSet) or not isinstance(tasksets, Iterable):
            raise InvalidCall(f"apply_all takes an iterable of task sets, not {tasksets!r:.200}")
        ids: list[uuid.UUID] = []
        lazy: list[tuple[TaskSet, int]] = []

        def drained() -> Iterator[tuple[SetSpec, Iterable[Call]]]:
            for number, taskset in enumerate(tasksets):
                if not isinstance(taskset, TaskSet):
                    raise InvalidCall(f"set {number}: expected a TaskSet, got {taskset!r:.200}")
                spec = taskset._spec(None, sealed=True)
                ids.append(spec.id)
                if taskset._list is None:
                    lazy.append((taskset, number))
                yield spec, taskset._calls()

        totals = bulk.enqueue_sets(drained())
        for taskset, number in lazy:
            taskset._applied = totals[number]
        return [TaskSetResult(key) for key in ids]

    def apply(self, *, taskset_id: str | uuid.UUID | None = None, **ignored: Any) -> TaskSetResult:
        """Execute all members and callbacks here and now, one after the other; no rows.

        Past the limit of failures the rest is REVOKED. Raises InvalidCall or UnknownTask.
        """
        refuse_unknown(ignored, "apply", known={"taskset_id"})
        return apply_set(self._spec(taskset_id, sealed=True), [subtask(c) for c in self._calls()])

    def open(self, *, taskset_id: str | uuid.UUID | None = None) -> OpenTaskSet:
        """For `with` and `async with`: apply the set, and add to it until the block ends.

        `with taskset.open() as result: result.add(...)`. The members run meanwhile; the set cannot
        finish before the block does. An exception in the block revokes the set and is raised.
        """
        return OpenTaskSet(self._spec(taskset_id, sealed=False), self._calls())

    aapply_async = twin(apply_async)
    aapply = twin(apply)

    @staticmethod
    async def aapply_all(tasksets: Iterable[TaskSet]) -> list[TaskSetResult]:
        """See apply_all()."""
        return await in_thread(TaskSet.apply_all)(tasksets)

    def _spec(self, taskset_id: str | uuid.UUID | None, *, sealed: bool) -> SetSpec:
        if self.owner is not None and not isinstance(self.owner, (get_user_model(), AnonymousUser)):
            raise InvalidOption(f"TaskSet: owner={self.owner!r} is not a user")
        is_saved = isinstance(self.related, Model) and not self.related._state.adding
        if self.related is not None and not is_saved:
            raise InvalidOption(f"TaskSet: related={self.related!r} is not a saved instance")
        return SetSpec(
            id=new_id() if taskset_id is None else parse_id(taskset_id),
            is_new=taskset_id is None,
            name=self.name,
            metadata=self.metadata,
            owner=self.owner,
            related=self.related,
            on_success=self.on_success,
            on_failure=self.on_failure,
            on_finish=self.on_finish,
            max_failures=self.max_failures,
            max_failures_percent=self.max_failures_percent,
            sealed=sealed,
        )

    def _calls(self) -> Iterable[Call]:
        return self._drained() if self._list is None else self._list

    def _drained(self) -> Iterator[Any]:
        if isinstance(self._given, Iterator):
            if self._is_drained:
                raise AlreadyApplied(
                    "This task set was made from a generator, which has been drained by applying "
                    "it. Make a new TaskSet, or give it a list"
                )
            self._is_drained = True
        return iter(self._given)


class OpenTaskSet:
    """A set that is applied when the block begins, and sealed when it ends."""

    def __init__(self, spec: SetSpec, calls: Iterable[Call]) -> None:
        self._spec = spec
        self._calls = calls

    def __enter__(self) -> TaskSetResult:
        enqueueing.enqueue_set(self._spec, self._calls)
        return TaskSetResult(self._spec.id)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            enqueueing.seal(self._spec.id)
            return
        try:
            control.revoke_set(self._spec.id, reason=f"{kind.__name__} while it was filled")
        except Error:
            # The connection or its transaction is broken, and what broke it is being raised.
            logger.warning("open taskset not revoked id=%s", self._spec.id, exc_info=True)

    async def __aenter__(self) -> TaskSetResult:
        return await in_thread(self.__enter__)()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await in_thread(self.__exit__)(kind, error, trace)


def _iterable(tasks: Any, arglist: tuple[Any, ...]) -> Iterable[Any]:
    if arglist or isinstance(tasks, str | Mapping) or not isinstance(tasks, Iterable):
        raise InvalidCall(
            "TaskSet takes one iterable of subtasks, as in "
            f"TaskSet(add.subtask((i, i)) for i in numbers), not {(tasks, *arglist)!r}"
        )
    if isgenerator(tasks) and getgeneratorstate(tasks) == GEN_CLOSED:
        raise InvalidCall(
            "TaskSet was given a generator that is exhausted: it has been read to its end already. "
            "Make it anew, or give a list"
        )
    return tasks


def _callback(kind: str, call: Any) -> Call | None:
    if call is None:
        return None
    if not isinstance(call, dict):
        raise InvalidCall(f"{kind} is a subtask, as in report.subtask(), not {call!r}")
    check_call(call, kind)
    return cast(Call, subtask(call))


def _limits(max_failures: Any) -> tuple[int | None, float | None]:
    """The limit as a number, or as a percentage."""
    if max_failures is None:
        return None, None
    if is_int(max_failures, 0, 2**31 - 1):
        return max_failures, None
    match = _PERCENT.fullmatch(max_failures) if isinstance(max_failures, str) else None
    if match is None or float(match[1]) > 100:
        raise InvalidOption(f"max_failures={max_failures!r} is neither a number nor like '5%'")
    return None, float(match[1])
