"""How a task set stands: everything about its handle that only reads."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import overload

from . import conf
from .ids import parse_id
from .members import ListedMembers, Member, Members, StoredMembers
from .models import SubtaskRecord, TaskSetRecord
from .progress import Progress
from .reading import missing
from .results import AsyncResult
from .statuses import CELERY_STATES, TaskSetStatus
from .twins import in_thread, twin


class Standing:
    """What a TaskSetResult tells. Nothing is remembered: all is read when it is asked for."""

    def __init__(
        self,
        taskset_id: str | uuid.UUID,
        results: Iterable[Member | str | uuid.UUID] | None = None,
        *,
        callbacks: Mapping[str, Member] | None = None,
    ) -> None:
        self._id = parse_id(taskset_id)
        self._is_listed = results is not None
        self._members: Members = (
            StoredMembers(self._id) if results is None else ListedMembers(self._id, results)
        )
        self._callbacks = callbacks

    @property
    def id(self) -> str:
        """The set's id."""
        return str(self._id)

    @property
    def taskset_id(self) -> str:
        """The same as `id`."""
        return str(self._id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Standing):
            return self.id == other.id
        return self.id == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    # What has come of it so far

    @property
    def record(self) -> TaskSetRecord | None:
        """The row; None for an id that is unknown, not committed yet, or pruned."""
        return TaskSetRecord.objects.using(conf.current().DATABASE).filter(pk=self._id).first()

    @property
    def status(self) -> TaskSetStatus | None:
        """The status; None for an id that is unknown."""
        progress = self._members.progress()
        return None if progress is None else progress.status

    @property
    def state(self) -> str:
        """The status in Celery's words; PENDING for an id that is unknown."""
        return CELERY_STATES.get(self.status or "", "PENDING")

    @property
    def name(self) -> str:
        """The name that the set was given; empty for none."""
        record = self.record
        return "" if record is None else record.name

    @property
    def results(self) -> Members:
        """The members' handles, by position: a sequence that reads ids as they are needed."""
        return self._members

    @property
    def subtasks(self) -> Members:
        """The same as `results`."""
        return self._members

    def itersubtasks(self) -> Iterator[Member]:
        """The members' handles, one by one."""
        return iter(self._members)

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> list[Member]: ...
    def __getitem__(self, index: int | slice) -> Member | list[Member]:
        return self._members[index]

    @property
    def total(self) -> int:
        """How many members there are."""
        return len(self._members)

    @property
    def callbacks(self) -> dict[str, Member]:
        """Handles of the callbacks of the newest generation, by on_success, on_failure, on_finish.

        A callback that was not needed ends REVOKED.
        """
        if self._callbacks is not None:
            return dict(self._callbacks)
        records = SubtaskRecord.objects.using(conf.current().DATABASE)
        # Callbacks have negative positions, those of the newest generation the lowest ones.
        rows = records.filter(taskset_id=self._id, position__lt=0).order_by("-position")
        found = rows.values_list("role", "generation", "id")
        newest = max((generation for _, generation, _ in found), default=0)
        return {r.lower(): AsyncResult(key) for r, generation, key in found if generation == newest}

    def progress(self) -> Progress:
        """All counts at once, from one read by primary key; raises UnknownId."""
        progress = self._members.progress()
        if progress is None:
            raise self._members.unknown() or missing(self.id)
        return progress

    def ready(self) -> bool:
        """Whether all members have finished, however they ended."""
        progress = self._members.progress()
        return progress is not None and progress.is_finished

    def waiting(self) -> bool:
        """Whether any member is unfinished, or the set is still open."""
        return not self.ready()

    def successful(self) -> bool:
        """Whether all members have finished and succeeded."""
        progress = self._members.progress()
        return progress is not None and progress.status == TaskSetStatus.SUCCESSFUL

    def failed(self) -> bool:
        """Whether any member has failed so far; one that was revoked has not."""
        progress = self._members.progress()
        return progress is not None and progress.failed > 0

    def completed_count(self) -> int:
        """How many members have succeeded."""
        progress = self._members.progress()
        return 0 if progress is None else progress.successful

    def finished_count(self) -> int:
        """How many members have finished, however they ended."""
        progress = self._members.progress()
        return 0 if progress is None else progress.finished

    def _is_stored(self) -> bool:
        return TaskSetRecord.objects.using(conf.current().DATABASE).filter(pk=self._id).exists()

    # Async twins

    async def arecord(self) -> TaskSetRecord | None:
        """See record."""
        return await in_thread(lambda: self.record)()

    async def astatus(self) -> TaskSetStatus | None:
        """See status."""
        return await in_thread(lambda: self.status)()

    async def astate(self) -> str:
        """See state."""
        return await in_thread(lambda: self.state)()

    async def aname(self) -> str:
        """See name."""
        return await in_thread(lambda: self.name)()

    async def atotal(self) -> int:
        """See total."""
        return await in_thread(lambda: self.total)()

    async def acallbacks(self) -> dict[str, Member]:
        """See callbacks."""
        return await in_thread(lambda: self.callbacks)()

    aprogress = twin(progress)
    aready = twin(ready)
    awaiting = twin(waiting)
    asuccessful = twin(successful)
    afailed = twin(failed)
    acompleted_count = twin(completed_count)
    afinished_count = twin(finished_count)
