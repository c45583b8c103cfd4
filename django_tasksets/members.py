"""The members of a set in their order: those that the set's rows say, or those that were listed."""

from __future__ import annotations

import json
import uuid
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final, overload

from . import conf
from .exceptions import UnknownId, UnreadableValue
from .models import SubtaskRecord, TaskSetRecord
from .progress import COLUMNS, Progress, progress_of, progress_of_list
from .reading import Reading, readings
from .results import AsyncResult, EagerResult
from .statuses import FINISHED, SubtaskStatus, TaskSetStatus
from .twins import in_thread

CHUNK: Final = 1000
"""How many rows one query reads."""

Member = AsyncResult[Any]


class Members(Sequence[Member]):
    """Handles of a set's members, by position; ids are read as they are needed."""

    @abstractmethod
    def progress(self) -> Progress | None:
        """The counts, by one query; None for a set that is unknown."""

    @abstractmethod
    def unknown(self) -> UnknownId | None:
        """Why, as progress() last saw it, waiting for the members would never end."""

    @abstractmethod
    def ids(self, start: int, stop: int) -> list[uuid.UUID]:
        """The ids at these positions, as far as there are so many."""

    @abstractmethod
    def finished(self, start: int, stop: int) -> list[int]:
        """Those of these positions whose subtasks have finished."""

    @abstractmethod
    def readings(self, positions: Sequence[int]) -> Mapping[int, Reading]:
        """What has come of the subtasks at these positions; of some, if others are gone."""

    @abstractmethod
    def first_failure(self) -> Reading | None:
        """The first member that failed, or if none did the first that was revoked."""

    def handles(self, start: int, stop: int) -> list[Member]:
        """The handles of these positions, as far as there are so many."""
        return [AsyncResult(key) for key in self.ids(start, stop)]

    def __len__(self) -> int:
        progress = self.progress()
        return 0 if progress is None else progress.total

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> list[Member]: ...
    def __getitem__(self, index: int | slice) -> Member | list[Member]:
        if isinstance(index, slice):
            picked = range(*index.indices(len(self)))
            start = min(picked, default=0)
            found = self.handles(start, max(picked, default=-1) + 1)
            return [found[position - start] for position in picked]
        position = index if index >= 0 else len(self) + index
        found = self.handles(position, position + 1) if position >= 0 else []
        if not found:
            raise IndexError(f"There is no subtask at position {index}")
        return found[0]

    def __iter__(self) -> Iterator[Member]:
        for start in count(step=CHUNK):
            chunk = self.handles(start, start + CHUNK)
            yield from chunk
            if len(chunk) < CHUNK:
                return

    async def __aiter__(self) -> AsyncIterator[Member]:
        for start in count(step=CHUNK):
            chunk = await in_thread(self.handles)(start, start + CHUNK)
            for handle in chunk:
                yield handle
            if len(chunk) < CHUNK:
                return

    async def aget(self, index: int) -> Member:
        """The handle at a position; raises IndexError."""
        return await in_thread(lambda: self[index])()


class StoredMembers(Members):
    """The members that are counted by the set's row."""

    def __init__(self, taskset_id: uuid.UUID) -> None:
        self._taskset_id = taskset_id
        self._is_unknown = False

    def progress(self) -> Progress | None:
        sets = TaskSetRecord.objects.using(conf.current().DATABASE)
        record = sets.filter(pk=self._taskset_id).only(*COLUMNS).first()
        self._is_unknown = record is None
        if record is None:
            return None
        if record.status == TaskSetStatus.SAVED:
            record.total = record.remaining = len(self._saved_ids())
        return progress_of(record)

    def unknown(self) -> UnknownId | None:
        if not self._is_unknown:
            return None
        return UnknownId(
            f"No task set has the id {self._taskset_id}: it was not applied, its transaction is "
            "not committed, or it was deleted or pruned"
        )

    def ids(self, start: int, stop: int) -> list[uuid.UUID]:
        rows = self._rows(position__gte=start, position__lt=stop).order_by("position")
        found = list(rows.values_list("id", flat=True))
        return found or self._saved_ids()[start:stop]

    def finished(self, start: int, stop: int) -> list[int]:
        rows = self._rows(position__gte=start, position__lt=stop, status__in=FINISHED)
        return [position for (position,) in rows.values_list("position") if position is not None]

    def readings(self, positions: Sequence[int]) -> Mapping[int, Reading]:
        if positions and positions[-1] - positions[0] == len(positions) - 1:
            which: dict[str, Any] = {"position__range": (positions[0], positions[-1])}
        else:
            which = {"position__in": positions}
        found = readings(taskset_id=self._taskset_id, **which)
        return {row.position: row for row in found if row.position is not None}

    def first_failure(self) -> Reading | None:
        for status in (SubtaskStatus.FAILED, SubtaskStatus.REVOKED):
            rows = self._rows(position__gte=0, status=status).order_by("position")
            key = rows.values_list("id", flat=True).first()
            if key is not None:
                return next(readings(pk=key), None)
        return None

    def _rows(self, **which: Any) -> Any:
        records = SubtaskRecord.objects.using(conf.current().DATABASE)
        return records.filter(taskset_id=self._taskset_id, **which)

    def _saved_ids(self) -> list[uuid.UUID]:
        sets = TaskSetRecord.objects.using(conf.current().DATABASE)
        saved = sets.filter(pk=self._taskset_id, status=TaskSetStatus.SAVED)
        text = saved.values_list("saved_ids", flat=True).first()
        try:
            return [uuid.UUID(key) for key in json.loads(text)] if text else []
        except (AttributeError, RecursionError, TypeError, ValueError) as error:
            raise UnreadableValue(
                f"The ids of the saved set {self._taskset_id} are none"
            ) from error


class ListedMembers(Members):
    """Subtasks that were listed by hand: read by their ids, whether they have a set or not."""

    def __init__(self, taskset_id: uuid.UUID, results: Iterable[Member | str | uuid.UUID]) -> None:
        self._taskset_id = taskset_id
        self._handles = [r if isinstance(r, AsyncResult) else AsyncResult(r) for r in results]
        self._is_missing = False

    def progress(self) -> Progress | None:
        statuses = self._statuses(self._handles)
        self._is_missing = None in statuses
        return progress_of_list(
            total=len(statuses),
            successful=statuses.count(SubtaskStatus.SUCCESSFUL),
            failed=statuses.count(SubtaskStatus.FAILED),
            revoked=statuses.count(SubtaskStatus.REVOKED),
        )

    def unknown(self) -> UnknownId | None:
        sets = TaskSetRecord.objects.using(conf.current().DATABASE)
        if not self._is_missing or sets.filter(pk=self._taskset_id).exists():
            return None
        return UnknownId(f"Subtasks of {self._taskset_id} are neither saved nor applied, or gone")

    def ids(self, start: int, stop: int) -> list[uuid.UUID]:
        return [uuid.UUID(handle.id) for handle in self._handles[start:stop]]

    def handles(self, start: int, stop: int) -> list[Member]:
        return self._handles[start:stop]

    def finished(self, start: int, stop: int) -> list[int]:
        statuses = self._statuses(self._handles[start:stop])
        return [start + n for n, status in enumerate(statuses) if status in FINISHED]

    def readings(self, positions: Sequence[int]) -> Mapping[int, Reading]:
        wanted = {position: self._handles[position] for position in positions}
        stored = [h.id for h in wanted.values() if not isinstance(h, EagerResult)]
        found: dict[str, Reading] = {str(row.id): row for row in readings(pk__in=stored)}
        found |= {h.id: h.reading for h in wanted.values() if isinstance(h, EagerResult)}
        return {p: found[handle.id] for p, handle in wanted.items() if handle.id in found}

    def first_failure(self) -> Reading | None:
        statuses = self._statuses(self._handles)
        for status in (SubtaskStatus.FAILED, SubtaskStatus.REVOKED):
            if status in statuses:
                position = statuses.index(status)
                return self.readings([position]).get(position)
        return None

    def _statuses(self, handles: Sequence[Member]) -> list[str | None]:
        """The status of each, None for one without a row; by one query for up to 5,000."""
        found = {h.id: str(h.reading.status) for h in handles if isinstance(h, EagerResult)}
        stored = [handle.id for handle in handles if handle.id not in found]
        records = SubtaskRecord.objects.using(conf.current().DATABASE)
        for start in range(0, len(stored), _MAX_PARAMETERS):
            some = records.filter(pk__in=stored[start : start + _MAX_PARAMETERS])
            found |= {str(key): status for key, status in some.values_list("id", "status")}
        return [found.get(handle.id) for handle in handles]


_MAX_PARAMETERS = 5000
