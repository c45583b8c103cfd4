"""Puts many sets into the database at once."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from .calls import Call, SetSpec
from .completion import Settled
from .conf import current
from .enqueueing import naming_what_is_taken, run_eagerly, settle_inserted
from .exceptions import TaskSetsError
from .models import TaskSetRecord
from .packing import Packer
from .setrows import callback_rows, set_record
from .spooling import Spool
from .statuses import SubtaskStatus
from .store import get_store
from .store.contract import Store


def enqueue_sets(sets: Iterable[tuple[SetSpec, Iterable[Call]]]) -> list[int]:
    """Enqueue new sets with their members and callbacks; returns their numbers of members.

    All calls are drained and encoded before the first write, to a temporary file if there are
    many. Everything is then written in one transaction, or in the caller's. The sets are claimed
    one after the other, and beside others' together as one set of so many members would be. Raises
    what enqueue_set() does.
    """
    store = get_store()
    packer = Packer(store)
    records: list[TaskSetRecord] = []
    with Spool() as spool:
        for number, (spec, calls) in enumerate(sets):
            ahead = records[-1].total if records else 0
            packer = packer.for_set(spec.id, ahead)
            records.append(_packed(store, packer, spec, calls, spool, f"set {number}"))

        def work() -> Settled:
            store.insert_sets(records)
            store.insert(spool)
            return settle_inserted(store, records, spool.queues)

        if records:
            with naming_what_is_taken(store, spool):
                settled = store.run(work)
            if current().ALWAYS_EAGER:
                members = (
                    uuid.UUID(row.id) for row in spool if row.status != SubtaskStatus.WAITING
                )
                run_eagerly(store, [*members, *(callback.id for callback in settled.released)])
    return [record.total for record in records]


def _packed(
    store: Store, packer: Packer, spec: SetSpec, calls: Iterable[Call], spool: Spool, where: str
) -> TaskSetRecord:
    """The set's row; those of its callbacks and members go to the spool."""
    try:
        record = set_record(store, spec, packer.now)
        callbacks = callback_rows(packer, spec)
    except TaskSetsError as error:
        error.args = (f"{where}: {error}",)
        raise
    for row in callbacks:
        spool.append(row)
    before = len(spool)
    for position, call in enumerate(calls):
        spool.append(packer.member(call, position, f"{where}, subtask {position}"))
    record.total = record.remaining = len(spool) - before
    return record
