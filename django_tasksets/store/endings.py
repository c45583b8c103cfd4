"""The end of a set, and the look at a result, in statements that are written out: the ORM would
make each of them anew, which takes longer than the database takes to execute it, and every set ends
once."""

from __future__ import annotations

import abc
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ..statuses import TaskSetStatus
from .contract import WaitingCallback
from .portable import PortableStore
from .tables import CALLBACK_COLUMNS, RESULT_COLUMNS, SUBTASK, TASKSET

CLOSE: Final = f"""
    UPDATE {TASKSET} SET status = %s, finished_at = {{now}}, announced_at = NULL
    WHERE id {{among}} AND status = 'RUNNING' AND remaining = 0 AND sealed_at IS NOT NULL"""
WAITING: Final = f"""
    SELECT {CALLBACK_COLUMNS} FROM {SUBTASK}
    WHERE taskset_id {{among}} AND position < 0 AND status = 'WAITING' ORDER BY id {{lock}}"""
# A callback that was given an eta or a countdown waits for that too.
RELEASE: Final = f"""
    UPDATE {SUBTASK}
    SET status = CASE WHEN run_after > {{now}} THEN 'SCHEDULED' ELSE 'READY' END
    WHERE id {{among}} AND status = 'WAITING'"""
DISCARD: Final = f"""
    UPDATE {SUBTASK} SET status = 'REVOKED', reason = %s, finished_at = {{now}}, expires_at = NULL
    WHERE id {{among}} AND status = 'WAITING'"""

RETURN_VALUES: Final = f"""
    SELECT position, return_value FROM {SUBTASK}
    WHERE taskset_id = %s AND position > %s ORDER BY position LIMIT %s"""

RESULT: Final = f"SELECT {RESULT_COLUMNS} FROM {SUBTASK} WHERE id = %s"


class EndingStore(PortableStore):
    """For databases that take a whole list of ids as one parameter."""

    among: str
    """The condition that a column holds one of the ids."""
    lock: str
    """The clause that locks what is read."""

    @abc.abstractmethod
    def as_parameter(self, ids: list[uuid.UUID]) -> Any:
        """The ids as `among` takes them."""

    @abc.abstractmethod
    def as_key(self, one: uuid.UUID) -> Any:
        """One id, of a set or a subtask, as a parameter."""

    @abc.abstractmethod
    def time(self) -> str:
        """The database's time, in SQL."""

    @abc.abstractmethod
    def as_callback(self, row: Sequence[Any]) -> WaitingCallback:
        """A callback as the driver has read it."""

    def close_sets(self, final: Sequence[tuple[uuid.UUID, TaskSetStatus]]) -> None:
        for status in {status for _, status in final}:
            self._execute(CLOSE, (key for key, its in final if its == status), status.value)

    def waiting_callbacks(self, sets: Sequence[tuple[uuid.UUID, int]]) -> list[WaitingCallback]:
        wanted = set(sets)
        found = map(self.as_callback, self._execute(WAITING, {key for key, _ in wanted}))
        return [one for one in found if (one.taskset_id, one.generation) in wanted]

    def release_callbacks(
        self, released: Sequence[uuid.UUID], unneeded: Sequence[uuid.UUID], reason: str
    ) -> None:
        if released:
            self._execute(RELEASE, released)
        if unneeded:
            self._execute(DISCARD, unneeded, reason)

    def return_values(
        self, taskset_id: uuid.UUID, after: int, limit: int
    ) -> Sequence[tuple[int, str | None]]:
        with self.connection.cursor() as cursor:
            cursor.execute(RETURN_VALUES, [self.as_key(taskset_id), after, limit])
            page: Sequence[tuple[int, str | None]] = cursor.fetchall()
        return page

    # Read

    def result_row(self, subtask_id: uuid.UUID) -> Sequence[Any] | None:
        with self.cursor_for(1) as cursor:
            cursor.execute(RESULT, [self.as_key(subtask_id)])
            row: Sequence[Any] | None = cursor.fetchone()
        return row

    def _execute(self, statement: str, ids: Iterable[uuid.UUID], *first: str) -> list[Any]:
        """Execute the statement with these parameters; what it has read."""
        keys = list(ids)
        among, parameter = self.among, self.as_parameter(keys)
        if len(keys) == 1:
            # What is compared with one can be planned for once and for all, by who keeps plans.
            among, parameter = "= %s", self.as_key(keys[0])
        statement = statement.format(among=among, lock=self.lock, now=self.time())
        with self.cursor_for(len(keys)) as cursor:
            cursor.execute(statement, [*first, parameter])
            return cursor.fetchall() if cursor.description else []
