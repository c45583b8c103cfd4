"""The handle of a task set: a light object, made from an id alone, in any process."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Self

from . import codec, control, enqueueing, steering
from .calls import Seconds
from .exceptions import InvalidCall, NotStorable
from .gathering import as_they_finish, in_order
from .members import Member
from .options import refuse_unknown
from .results import AsyncResult, EagerResult
from .standing import Standing
from .subtasks import AnyCall
from .twins import in_thread, twin
from .waiting import Patience, Steps, adrive, drive


class TaskSetResult(Standing):
    """What a task set comes to. Equal to, and hashed as, its id.

    With `results`, a list of handles or ids, it is about these subtasks, whether the set that
    they are to form has been applied yet or not; else about the members of the stored set.

    Making one costs no query and does not ask whether the id is known; raises InvalidId for what
    cannot be an id. Everything is read when it is asked for, and nothing is remembered: for
    several facts of one moment read `progress()` or `record` once.
    """

    # Waiting for it

    def join(
        self,
        timeout: Seconds | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002  as Celery
        interval: Seconds = 0.5,
    ) -> list[Any]:
        """Wait until all have finished, and return what they returned, in their order.

        The first failure is raised as soon as it is seen: what AsyncResult.get() would raise for
        that member. With propagate=False exceptions stand in the list, in their places.

        Raises ResultTimeout after `timeout` seconds; WouldDeadlock instead of waiting in a
        subtask or a transaction; without a timeout UnknownId for ids that are unknown.
        Looks again at least every `interval` seconds.
        """
        return list(drive(self._all(timeout, interval, propagate=propagate)))

    async def ajoin(
        self,
        timeout: Seconds | None = None,  # noqa: ASYNC109  as in join()
        propagate: bool = True,  # noqa: FBT001, FBT002  as Celery
        interval: Seconds = 0.5,
    ) -> list[Any]:
        """See join()."""
        return [value async for value in adrive(self._all(timeout, interval, propagate=propagate))]

    def iterate(
        self,
        timeout: Seconds | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002  as Celery
        interval: Seconds = 0.5,
    ) -> Iterator[Any]:
        """What the members return, one by one as they finish; raises what join() does.

        Each member is delivered once, and no more than a hundred values are held at a time.
        """
        return drive(self._each(timeout, interval, propagate=propagate))

    def aiterate(
        self,
        timeout: Seconds | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002  as Celery
        interval: Seconds = 0.5,
    ) -> AsyncIterator[Any]:
        """See iterate()."""
        return adrive(self._each(timeout, interval, propagate=propagate))

    def __iter__(self) -> Iterator[Any]:
        return self.iterate()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self.aiterate()

    def _all(self, timeout: Seconds | None, interval: Seconds, *, propagate: bool) -> Steps[Any]:
        return in_order(self._members, self._patience(timeout, interval), propagate=propagate)

    def _each(self, timeout: Seconds | None, interval: Seconds, *, propagate: bool) -> Steps[Any]:
        return as_they_finish(self._members, self._patience(timeout, interval), propagate=propagate)

    def _patience(self, timeout: Seconds | None, interval: Seconds) -> Patience:
        return Patience(timeout=timeout, interval=interval, what=f"Task set {self.id}")

    join_native, iter_native = join, iterate

    # What can be done to it

    def add(self, subtasks: AnyCall | Iterable[AnyCall]) -> list[Member]:
        """Add a subtask, or several at once, to a set that is open or that this subtask is in.

        Returns their handles. All are added, in one transaction or in the caller's, or none.
        Raises TaskSetSealed if the set takes no more, and what apply_async() does.
        """
        calls: Any = [subtasks] if isinstance(subtasks, Mapping) else subtasks
        if isinstance(calls, str) or not isinstance(calls, Iterable):
            raise InvalidCall(f"add() takes a subtask or several, not {calls!r:.200}")
        ids = enqueueing.add(self._id, calls)
        return [AsyncResult(key) for key in ids]

    def revoke(self, *, terminate: bool = False, reason: str = "revoked", **ignored: Any) -> int:
        """Call off all unfinished members; returns how many had not begun to execute.

        Those end REVOKED now. Those that execute go on until an `await`, or until their task
        reads `request.revoked`; with terminate=True their worker processes are replaced.
        """
        refuse_unknown(ignored, "revoke", known={"terminate", "reason"})
        if not self._is_listed or self._is_stored():
            revoked = control.revoke_set(self._id, terminate=terminate, reason=reason)
            enqueueing.run_released(self._id)
            return revoked
        return control.revoke_subtasks(self._listed_ids(), terminate=terminate, reason=reason)

    def pause(self) -> bool:
        """Hold back the members that have not begun; whether the set was running.

        What executes goes on and is recorded. A retry, or what is added, is held back too.
        """
        return steering.pause_set(self._id)

    def resume(self) -> bool:
        """Let a paused set go on; whether it was paused."""
        return steering.resume_set(self._id)

    def retry_failed(self) -> int:
        """Take FAILED and REVOKED members back to be executed again; how many.

        While the set runs they join it again. A finished set runs again, in a new generation with
        callbacks of its own. All in one transaction, or in the caller's.
        """
        return steering.retry_failed_set(self._id)

    def rerun(self) -> Self:
        """Apply a new set with the same members, callbacks and policy; returns its handle.

        Its `record.origin` is this set. Raises UnknownId.
        """
        return type(self)(steering.rerun_set(self._id))

    def forget(self) -> None:
        """Drop what the members returned, and their tracebacks; arguments, reasons and counts stay.

        Raises StillUnfinished while the set or a callback of it is unfinished.
        """
        if not self._is_listed or self._is_stored():
            control.forget_set(self._id)
        else:
            control.forget(self._listed_ids())

    def delete(self, **ignored: Any) -> None:
        """Delete the set with everything in it; raises StillUnfinished. Deletes none twice."""
        refuse_unknown(ignored, "delete")
        control.delete_set(self._id)

    def save(self, **ignored: Any) -> None:
        """Write a listed set down before it is applied, so that restore() finds it at once.

        Its row is SAVED until apply_async(taskset_id=) turns it into a running set. A set that
        is saved or applied already is left alone; one without a list raises UnknownId.
        """
        refuse_unknown(ignored, "save")
        if self._is_listed:
            enqueueing.save_set(self._id, self._listed_ids())
        else:
            self.progress()

    @classmethod
    def restore(cls, taskset_id: str | uuid.UUID, **ignored: Any) -> Self | None:
        """The handle of a saved or applied set; None if the id is unknown. Raises InvalidId."""
        refuse_unknown(ignored, "restore")
        result = cls(taskset_id)
        return result if result._is_stored() else None

    def _listed_ids(self) -> list[uuid.UUID]:
        return [uuid.UUID(r.id) for r in self._members if not isinstance(r, EagerResult)]

    # Async twins

    aadd = twin(add)
    arevoke = twin(revoke)
    apause = twin(pause)
    aresume = twin(resume)
    aretry_failed = twin(retry_failed)
    arerun = twin(rerun)
    aforget = twin(forget)
    adelete = twin(delete)
    asave = twin(save)

    @classmethod
    async def arestore(cls, taskset_id: str | uuid.UUID, **ignored: Any) -> Self | None:
        """See restore()."""
        return await in_thread(cls.restore)(taskset_id, **ignored)


def _to_json(result: TaskSetResult) -> Any:
    if not result._is_listed:
        return result.id
    if any(isinstance(member, EagerResult) for member in result.results):
        raise NotStorable("what apply() returns has no rows; store its values")
    return [result.id, [member.id for member in result.results]]


def _from_json(value: Any) -> TaskSetResult:
    return TaskSetResult(value) if isinstance(value, str) else TaskSetResult(*value)


codec.register_type(TaskSetResult, "TaskSetResult", _to_json, _from_json)
