"""The handle of one subtask: a light object, made from an id alone, in any process."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from . import codec, conf, control
from .calls import Seconds
from .exceptions import ResultTimeout, SubtaskRevoked
from .ids import parse_id
from .models import SubtaskRecord
from .options import refuse_unknown
from .reading import Reading, is_finished, missing, read, settle
from .statuses import CELERY_STATES, FINISHED, SubtaskStatus, subtask_status
from .twins import in_thread, twin
from .waiting import Patience, Steps, afirst, first

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    R = TypeVar("R", default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R")


class AsyncResult(Generic[R]):
    """What a subtask comes to. Equal to, and hashed as, its id.

    Making one costs no query and does not ask whether the id is known; raises InvalidId for what
    cannot be an id. Everything is read when it is asked for, and nothing is remembered: for
    several facts of one moment read `record` once.
    """

    TimeoutError = ResultTimeout

    def __init__(self, task_id: str | uuid.UUID, **ignored: Any) -> None:
        refuse_unknown(ignored, type(self).__name__)
        self.id = str(parse_id(task_id))

    @property
    def task_id(self) -> str:
        """The same as `id`."""
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return self.id == other.id
        return self.id == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    # What has come of it so far

    @property
    def record(self) -> SubtaskRecord | None:
        """The row; None for an id that is unknown, not committed yet, or pruned."""
        return SubtaskRecord.objects.using(conf.current().DATABASE).filter(pk=self.id).first()

    @property
    def status(self) -> SubtaskStatus | None:
        """The status; None for an id that is unknown."""
        reading = self._read()
        return None if reading is None else subtask_status(reading.status)

    @property
    def state(self) -> str:
        """The status in Celery's words; PENDING for an id that is unknown."""
        reading = self._read()
        if reading is None:
            return "PENDING"
        if reading.status == SubtaskStatus.SCHEDULED and reading.retries:
            return "RETRY"
        return CELERY_STATES[subtask_status(reading.status)]

    @property
    def result(self) -> R | BaseException | None:
        """The return value, or the exception; None as long as there is neither."""
        reading = self._read()
        return None if reading is None else reading.value()

    @property
    def info(self) -> R | BaseException | None:
        """The same as `result`."""
        return self.result

    @property
    def traceback(self) -> str | None:
        """The traceback of the last execution that did not succeed."""
        reading = self._read()
        return None if reading is None else reading.traceback

    def ready(self) -> bool:
        """Whether it has finished, however it ended."""
        return self.status in FINISHED

    def successful(self) -> bool:
        """Whether it has finished and succeeded."""
        return self.status == SubtaskStatus.SUCCESSFUL

    def failed(self) -> bool:
        """Whether it has finished and failed; one that was revoked has not."""
        return self.status == SubtaskStatus.FAILED

    def get(
        self,
        timeout: Seconds | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002  as Celery
        interval: Seconds = 0.5,
    ) -> R:
        """Wait until it has finished, and return what the task returned.

        A failure is raised: the task's own exception if its class is imported here and its
        arguments could be stored, else SubtaskFailed; SubtaskRevoked if it was revoked. Each has
        the traceback as `remote_traceback`. With propagate=False it is returned instead.

        Raises ResultTimeout after `timeout` seconds; WouldDeadlock instead of waiting in a
        subtask or a transaction; without a timeout UnknownId for an id that is unknown.
        Looks again at least every `interval` seconds.
        """
        return first(self._arrival(timeout, interval, propagate=propagate))

    async def aget(
        self,
        timeout: Seconds | None = None,  # noqa: ASYNC109  as in get()
        propagate: bool = True,  # noqa: FBT001, FBT002  as Celery
        interval: Seconds = 0.5,
    ) -> R:
        """See get()."""
        return await afirst(self._arrival(timeout, interval, propagate=propagate))

    def _arrival(self, timeout: Seconds | None, interval: Seconds, *, propagate: bool) -> Steps[R]:
        patience = Patience(timeout=timeout, interval=interval, what=f"Subtask {self.id}")
        while (reading := self._read()) is None or not is_finished(reading):
            if reading is None and patience.endless:
                raise missing(self.id)
            yield patience.pause()
        yield [settle(reading, propagate=propagate)]

    def _read(self) -> Reading | None:
        return read(uuid.UUID(self.id))

    # What can be done to it

    def revoke(self, *, terminate: bool = False, **ignored: Any) -> None:
        """Call it off: it ends REVOKED before it begins, or as soon as its task lets it.

        One that executes goes on until an `await`, or until its task reads `request.revoked`;
        with terminate=True its worker process is replaced. Once finished it stays as it is.
        """
        refuse_unknown(ignored, "revoke")
        control.revoke_subtasks([uuid.UUID(self.id)], terminate=terminate)

    def forget(self) -> None:
        """Delete what is stored of it.

        Raises StillUnfinished, also while its set or a callback of that is unfinished.
        """
        control.forget([uuid.UUID(self.id)])

    # Async twins

    async def arecord(self) -> SubtaskRecord | None:
        """See record."""
        return await in_thread(lambda: self.record)()

    async def astatus(self) -> SubtaskStatus | None:
        """See status."""
        return await in_thread(lambda: self.status)()

    async def astate(self) -> str:
        """See state."""
        return await in_thread(lambda: self.state)()

    async def aresult(self) -> R | BaseException | None:
        """See result."""
        return await in_thread(lambda: self.result)()

    async def atraceback(self) -> str | None:
        """See traceback."""
        return await in_thread(lambda: self.traceback)()

    wait = get
    aready = twin(ready)
    asuccessful = twin(successful)
    afailed = twin(failed)
    arevoke = twin(revoke)
    aforget = twin(forget)


class EagerResult(AsyncResult[R]):
    """What a subtask came to that was executed here, by apply(); it has no row.

    `state` is the status, in our words or in Celery's.
    """

    def __init__(
        self,
        task_id: str | uuid.UUID,
        ret_value: R | BaseException,
        state: str,
        traceback: str | None = None,
    ) -> None:
        super().__init__(task_id)
        status = SubtaskStatus(_STATUSES.get(state, state))
        self.reading: Reading = _Known(status, ret_value, traceback)

    def _read(self) -> Reading:
        return self.reading

    @property
    def record(self) -> None:
        """Always None: there is no row."""

    def revoke(self, *, terminate: bool = False, **ignored: Any) -> None:
        """Say REVOKED from now on; it has been executed already."""
        refuse_unknown(ignored, "revoke")
        self.reading = _Known(SubtaskStatus.REVOKED, SubtaskRevoked(), None)

    def forget(self) -> None:
        """Do nothing: there is no row."""


_STATUSES = {state: status for status, state in CELERY_STATES.items() if status in FINISHED}


@dataclass(frozen=True, slots=True)
class _Known:
    """The reading of a subtask that has no row."""

    status: SubtaskStatus
    ending: Any
    traceback: str | None
    retries: int = 0

    def value(self) -> Any:
        """See Reading."""
        return self.ending


codec.register_type(AsyncResult, "AsyncResult", lambda result: result.id, AsyncResult)
