"""Reads claimed rows on SQLite, where a column of any type holds values of any type.

Rows are read together, as one JSON text. Where something in them keeps them from that, it was not
written by us: they are read one by one then, and those of which nothing can be made have failed.
"""

from __future__ import annotations

import datetime
import json
import logging
import uuid
from collections.abc import Sequence
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, Final

from django.db import OperationalError

from ..ids import new_id, read_id
from .contract import UNREADABLE, Claimed
from .portable import UNREADABLE_ROWS
from .tables import CLAIMED_COLUMNS, SUBTASK
from .transactions import Transactions

logger = logging.getLogger("django_tasksets")

INTEGERS: Final = (
    "claims", "generation", "priority", "claim_order", "attempts", "retries", "crashes",
    "deferrals",
)  # fmt: skip
TEXTS: Final = ("task_name", "args", "kwargs", "options", "links", "role", "queue_name")
ROWS: Final = f"""
    SELECT json_group_array(json_array({CLAIMED_COLUMNS})) FROM {SUBTASK}
    WHERE rowid IN (SELECT value FROM json_each(%s))"""
ROW: Final = f"SELECT json_array({CLAIMED_COLUMNS}) FROM {SUBTASK} WHERE rowid = %s"
# What has been written is mended such that it can be shown. A row without a readable id gets one.
SET_ASIDE: Final = f"""
    UPDATE {SUBTASK} SET status = 'FAILED', reason = '{UNREADABLE}', worker_id = NULL,
        finished_at = %s, enqueued_at = %s, expires_at = NULL, run_after = NULL, claimed_at = NULL,
        {", ".join(f"{name} = CAST({name} AS INTEGER)" for name in INTEGERS)},
        id = CASE WHEN typeof(id) = 'text' AND length(id) = 32 AND id NOT GLOB '*[^0-9a-f]*'
            THEN id ELSE %s END
    WHERE rowid = %s"""
INTEGER: Final = frozenset({int})
NUMBERS: Final = itemgetter(*map(Claimed._fields.index, INTEGERS))
ID, TASKSET_ID, ENQUEUED_AT, EXPIRES_AT = map(
    Claimed._fields.index, ("id", "taskset_id", "enqueued_at", "expires_at")
)


def read(store: Transactions, numbers: Sequence[int]) -> list[Claimed]:
    """The claimed rows that have these numbers in the file, in no order."""
    try:
        with store.connection.cursor() as cursor:
            cursor.execute(ROWS, [json.dumps(numbers)])
            return list(map(_claimed, json.loads(cursor.fetchone()[0])))
    except UNREADABLE_ROWS as error:
        _raise_unless_about_values(error)
    return [row for number in numbers for row in _readable(store, number)]


def _readable(store: Transactions, number: int) -> list[Claimed]:
    """The row, unless nothing can be made of it: then it has failed."""
    try:
        with store.connection.cursor() as cursor:
            cursor.execute(ROW, [number])
            return [_claimed(json.loads(cursor.fetchone()[0]))]
    except UNREADABLE_ROWS as error:
        _raise_unless_about_values(error)
        store.run(partial(_set_aside, store, number, error))
    return []


def _set_aside(store: Transactions, number: int, error: BaseException) -> None:
    logger.error("subtask unreadable row=%s error=%r", number, error)
    now = as_text(store.now())
    with store.connection.cursor() as cursor:
        for name in TEXTS:
            if not _is_text(cursor, name, number):
                hexed = f"UPDATE {SUBTASK} SET {name} = hex({name}) WHERE rowid = %s"
                cursor.execute(hexed, [number])
        cursor.execute(SET_ASIDE, [now, now, new_id().hex, number])


def _is_text(cursor: Any, column: str, number: int) -> bool:
    try:
        cursor.execute(f"SELECT {column} FROM {SUBTASK} WHERE rowid = %s", [number])
        return isinstance(cursor.fetchone()[0], str)
    except UNREADABLE_ROWS as error:
        _raise_unless_about_values(error)
        return False


def _raise_unless_about_values(error: BaseException) -> None:
    """A row is to blame, and not the disk or a lock: SQLite has one class of errors for all of
    them."""
    words = ("cannot hold BLOB", "decode to UTF-8")
    if isinstance(error, OperationalError) and not any(text in str(error) for text in words):
        raise error


def _claimed(values: list[Any]) -> Claimed:
    if not INTEGER.issuperset(map(type, NUMBERS(values))):
        raise TypeError("a column of numbers holds something else")
    values[ID] = read_id(values[ID])
    values[TASKSET_ID] = _uuid(values[TASKSET_ID])
    values[ENQUEUED_AT] = _moment(values[ENQUEUED_AT])
    values[EXPIRES_AT] = _moment(values[EXPIRES_AT])
    return Claimed._make(values)


# What the rows of one set have in common is made once.


@lru_cache(maxsize=256)
def _uuid(text: str | None) -> uuid.UUID | None:
    return None if text is None else read_id(text)


@lru_cache(maxsize=256)
def _moment(text: str | None) -> Any:
    return None if text is None else datetime.datetime.fromisoformat(f"{text}+00:00")


@lru_cache(maxsize=256)
def as_text(moment: datetime.datetime) -> str:
    """A time as Django stores it in SQLite."""
    return moment.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
