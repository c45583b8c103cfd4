"""Rows on their way into the database: in memory while they are few, then in a temporary file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any, Final, Self

from .statuses import SubtaskStatus
from .store.contract import NewSubtask

ROWS_IN_MEMORY: Final = 12_000
# Of arguments: as many rows as fit into it are kept if they are large.
BYTES_IN_MEMORY: Final = 16_000_000
# From so many characters on, options and links are not shared, but the row's own.
LONG: Final = 1000
# What each row has for itself; the rest most rows of a set have in common.
OWN: Final = ("id", "position", "args", "kwargs", "claim_order")
SHARED: Final = tuple(name for name in NewSubtask._fields if name not in OWN)
TIMES: Final = ("run_after", "expires_at", "enqueued_at")
# Where each column is, in what a line has for itself and what is shared.
PLACES: Final = itemgetter(*map((*OWN, *SHARED).index, NewSubtask._fields))
READY: Final = SubtaskStatus.READY.value

shared_of: Final = attrgetter(*SHARED)


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
        self._file.writelines(map(_line, self._rows))
        self._rows.clear()
        self._bytes = 0

    def __iter__(self) -> Iterator[NewSubtask]:
        """The rows in their order. One iteration at a time."""
        if self._file is not None:
            self._file.seek(0)
            yield from map(_row, self._file)
            self._file.seek(0, 2)
        yield from self._rows


# Lines of JSON would do, but to write and read all of each row takes as long as to make and insert
# it: so a line has what is the row's own as it is, and after it the text of what is shared, which
# is made, and read, once for all rows that share it.


def _line(row: NewSubtask) -> str:
    texts = row.args + row.kwargs
    if not (texts.isascii() and texts.isprintable() and len(row.options) + len(row.links) < LONG):
        return json.dumps(row, default=datetime.isoformat) + "\n"
    position = "" if row.position is None else row.position
    shared = _shared_text(shared_of(row))
    return f"{row.id}\t{position}\t{row.args}\t{row.kwargs}\t{row.claim_order}\t{shared}\n"


def _row(line: str) -> NewSubtask:
    if line[0] == "[":
        return NewSubtask._make(_read(NewSubtask._fields, json.loads(line)))
    key, position, args, kwargs, claim_order, shared = line.split("\t")
    own = (key, int(position) if position else None, args, kwargs, int(claim_order))
    return NewSubtask._make(PLACES((*own, *_shared(shared))))


@lru_cache(maxsize=256)
def _shared_text(values: tuple[Any, ...]) -> str:
    return json.dumps(values, default=datetime.isoformat)


@lru_cache(maxsize=256)
def _shared(text: str) -> tuple[Any, ...]:
    return tuple(_read(SHARED, json.loads(text)))


def _read(names: Iterable[str], values: Iterable[Any]) -> Iterator[Any]:
    for name, value in zip(names, values, strict=True):
        yield datetime.fromisoformat(value) if name in TIMES and value is not None else value
