"""Links: subtasks that are enqueued by the end of another one, in the same transaction."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator

from django.db import DatabaseError, transaction

from . import codec
from .packing import Packer
from .statuses import SubtaskStatus
from .store.contract import NewSubtask, Outcome, Store

logger = logging.getLogger("django_tasksets")


def enqueue_links(store: Store, linked: Iterable[Outcome]) -> list[NewSubtask]:
    """Enqueue the links that the ends of these set off; returns the rows.

    A step of the transaction that records the ends. Never fails because of a link: one that cannot
    be enqueued (its id is taken by now, its text has been tampered with) is logged and left out.
    """
    packer = Packer(store)
    rows = [row for final in linked for row in _rows(packer, final)]
    if not rows or _insert(store, rows):
        return rows
    return [row for row in rows if _insert(store, [row])]


# What reading and writing may raise of values that somebody else has written.
WRONG = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def _rows(packer: Packer, final: Outcome) -> Iterator[NewSubtask]:
    """What an ended subtask sets off."""
    claimed = final.claimed
    if final.status == SubtaskStatus.SUCCESSFUL and final.return_value is not None:
        kind, first = "link", final.return_value
    elif final.status == SubtaskStatus.FAILED:
        kind, first = "link_error", codec.handle("AsyncResult", claimed.id)
    else:
        return
    try:
        for link in json.loads(claimed.links).get(kind, ()):
            yield packer.linked(link, first)
    except WRONG as error:
        logger.error("links unreadable id=%s error=%r", claimed.id, error)


def _insert(store: Store, rows: list[NewSubtask]) -> bool:
    try:
        with transaction.atomic(using=store.alias):
            store.insert(rows)
    except (DatabaseError, *WRONG) as error:
        if isinstance(error, DatabaseError) and not store.is_refusal(error):
            raise
        if len(rows) == 1:
            logger.error("link not enqueued id=%s error=%r", rows[0].id, error)
        return False
    return True
