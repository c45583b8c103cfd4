"""Rows on their way into the database: in memory while they are few, then in a temporary file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Self

from .statuses import SubtaskStatus
from .store.contract import NewSubtask, batches

ROWS_IN_MEMORY: Final = 12_000
# Of arguments: as many rows as fit into it are kept if they are large.
BYTES_IN_MEMORY: Final = 16_000_000
ROWS_IN_A_LINE: Final = 100
TIMES: Final = tuple(map(NewSubtask._fields.index, ("run_after", "expires_at", "enqueued_at")))
READY: Final = SubtaskStatus.READY.value


class Spool:
    """A sequence of rows that is written once and can be read often."""

    def __init__(self) -> None:
        self._rows: list[NewSubtask] = []
        self._file: Any = None
        self._length = 0
        self._bytes = 0
        self.queues: set[str] = set()
        """The queues that have something to claim once the rows are committed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return self._length

    def append(self, row: NewSubtask) -> None:
        """Add a row at the end."""
        self._rows.append(row)
        self._length += 1
        self._bytes += len(row.args) + len(row.kwargs)
        if row.status == READY:
            self.queues.add(row.queue_name)
        if len(self._rows) >= ROWS_IN_MEMORY or self._bytes >= BYTES_IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            # Closed by __exit__, like everything that was spooled.
            self._file = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115
        # Large ones each have a line of their own, for a line is read as a whole.
        size = 1 if self._bytes >= BYTES_IN_MEMORY else ROWS_IN_A_LINE
        for some in batches(self._rows, size):
            self._file.write(json.dumps(some, default=datetime.isoformat) + "\n")
        self._rows.clear()
        self._bytes = 0

    def __iter__(self) -> Iterator[NewSubtask]:
        """The rows in their order. One iteration at a time."""
        if self._file is not None:
            self._file.seek(0)
            for line in self._file:
                yield from map(_row, json.loads(line))
            self._file.seek(0, 2)
        yield from self._rows


def _row(values: list[Any]) -> NewSubtask:
    for index in TIMES:
        values[index] = _moment(values[index])
    return NewSubtask._make(values)


# The rows of one set have their moments in common.
@lru_cache(maxsize=256)
def _moment(text: Any) -> Any:
    return None if text is None else datetime.fromisoformat(text)
