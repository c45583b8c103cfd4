"""Steering what has been enqueued: revoke, forget, delete."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from django.db import connections
from django.db.models import Q
from django.db.models.functions import Coalesce

from .announcing import tell_on_commit
from .completion import Settled, callbacks_ended, locked_state, nothing, settle
from .exceptions import StillUnfinished
from .failures import clean
from .models import SubtaskRecord, TaskSetRecord
from .querysets import SubtaskQuerySet
from .slicing import SLICE, slices
from .statuses import FINISHED_SETS, RevokeFlag, Role, SubtaskStatus
from .store import get_store
from .store.contract import Ended, Store, Tally, batches
from .store.moments import Now
from .wakeups import wake_on_commit

logger = logging.getLogger("django_tasksets")

# How often rows are asked again that somebody had locked; the waits in between add up to 2 s.
TRIES = 20
NESTED_TRIES = 5
PAUSE = 0.01
# Before the position of any callback.
FIRST_OF_ALL = -(2**31)
UNFINISHED_SET = "The set is unfinished; revoke it or wait for its end"


def revoke_subtasks(
    ids: Sequence[uuid.UUID], *, terminate: bool = False, reason: str = "revoked"
) -> int:
    """Revoke subtasks, in chunks of a transaction each; returns how many were not yet finished.

    Those that are not executing become REVOKED at once. A RUNNING one is asked to stop: async code
    is cancelled, sync code sees `request.revoked`, with `terminate` its process is replaced; it is
    counted when it ends, as what it ends.
    """
    store, reason = get_store(), _storable(reason)
    flag = RevokeFlag.TERMINATE if terminate else RevokeFlag.REVOKE
    reached = 0

    def reach(keys: list[uuid.UUID]) -> list[uuid.UUID]:
        nonlocal reached
        reached += revoke_pending(store, keys, reason=reason)
        # What a worker has claimed since then is RUNNING now.
        reached += store.run(lambda: store.flag(keys, flag))
        return _unreached(store, keys, flag)

    for batch in batches(ids, SLICE):
        _insist(store, reach, batch)
    return reached


def revoke_set(taskset_id: uuid.UUID, *, terminate: bool = False, reason: str = "revoked") -> int:
    """Revoke a set: seal it, mark it, and revoke its unfinished members; returns how many of them
    no worker had claimed yet.

    The mark is committed first. Workers learn of it within half a second: what they have claimed
    and not begun ends REVOKED, what they execute is asked to stop.
    """
    store, reason = get_store(), _storable(reason)
    running = TaskSetRecord.objects.using(store.alias).running()
    store.run(
        lambda: store.update_set(
            running,
            taskset_id,
            revoke_requested_at=Coalesce("revoke_requested_at", Now()),
            revoke_reason=reason,
            sealed_at=Coalesce("sealed_at", Now()),
        )
    )
    revoked = revoke_rest(store, taskset_id)
    if terminate:
        _terminate(store, taskset_id)
    return revoked


def _terminate(store: Store, taskset_id: uuid.UUID) -> None:
    """Have the members of a marked set that execute ended, as long as the mark stands."""

    def reach(keys: list[uuid.UUID]) -> list[uuid.UUID]:
        def work() -> bool:
            stands = _is_marked(store, taskset_id)
            if stands:
                store.flag(keys, RevokeFlag.TERMINATE)
            return stands

        return _unreached(store, keys, RevokeFlag.TERMINATE) if store.run(work) else []

    for part in slices(store, taskset_id):
        running = part.filter(status=SubtaskStatus.RUNNING)
        _insist(store, reach, list(running.values_list("id", flat=True)))


def _is_marked(store: Store, taskset_id: uuid.UUID) -> bool:
    """Lock the set's row; whether it is still to be revoked. A step of a transaction."""
    state = locked_state(store, taskset_id)
    return state is not None and state.revoke_requested_at is not None


def revoke_rest(store: Store, taskset_id: uuid.UUID) -> int:
    """Revoke the members of a marked set that no worker holds, for its reason; how many.

    Then finish it, if no member is left: one that was open, for example. It stops where the mark
    is taken from the set: what has been retried since is not to be revoked.
    """
    pending = SubtaskRecord.objects.using(store.alias).pending()
    sets = TaskSetRecord.objects.using(store.alias).filter(id=taskset_id)
    reason = sets.values_list("revoke_reason", flat=True).first() or "revoked"
    revoked, is_marked = 0, True

    def reach(keys: list[uuid.UUID]) -> list[uuid.UUID]:
        nonlocal revoked, is_marked
        count = store.run(lambda: _revoke_of_marked(store, taskset_id, keys, reason))
        if count is None:
            is_marked = False
            return []
        revoked += count
        return list(pending.filter(id__in=keys).values_list("id", flat=True))

    for part in slices(store, taskset_id):
        _insist(store, reach, list(part.pending().values_list("id", flat=True)))
        if not is_marked:
            return revoked
    store.run(lambda: _tell(store, settle(store, [nothing(taskset_id)])))
    return revoked


def _revoke_of_marked(
    store: Store, taskset_id: uuid.UUID, ids: Sequence[uuid.UUID], reason: str
) -> int | None:
    """Revoke these members, unless the mark is gone: then None. A step of a transaction."""
    return _revoke(store, ids, reason) if _is_marked(store, taskset_id) else None


def _storable(reason: object) -> str:
    """A reason as any database stores it."""
    return clean(str(reason))[:200]


def revoke_pending(store: Store, ids: Sequence[uuid.UUID], *, reason: str) -> int:
    """Revoke those of `ids` that no worker holds, count them, and tell; how many. One transaction.

    Rows that somebody has locked are passed over.
    """
    return store.run(lambda: _revoke(store, ids, reason))


def _revoke(store: Store, ids: Sequence[uuid.UUID], reason: str) -> int:
    ended = store.revoke(ids, reason)
    _tell(store, end(store, ended), ended, reason=reason)
    return len(ended)


def end(store: Store, ended: Sequence[Ended]) -> Settled:
    """Count subtasks that have just been revoked off their sets, and let their callbacks follow.

    A step of the transaction that revoked them.
    """
    counts: dict[uuid.UUID, int] = {}
    callbacks: list[tuple[uuid.UUID, int]] = []
    for one in ended:
        if one.taskset_id is None:
            continue
        if one.role == Role.MEMBER:
            counts[one.taskset_id] = counts.get(one.taskset_id, 0) + 1
        elif one.role != Role.ON_FINISH:
            callbacks.append((one.taskset_id, one.generation))
    settled = settle(store, [Tally(key, 0, 0, count, 0) for key, count in counts.items()])
    callbacks = _of_finished(store, callbacks)
    if callbacks:
        settled.released = settled.released + callbacks_ended(store, callbacks)
    return settled


def _of_finished(
    store: Store, callbacks: Sequence[tuple[uuid.UUID, int]]
) -> list[tuple[uuid.UUID, int]]:
    """Those of (set, generation) that have finished: the rest have released no callback yet."""
    if not callbacks:
        return []
    sets = TaskSetRecord.objects.using(store.alias).filter(id__in=[key for key, _ in callbacks])
    finished = {
        key: newest if status in FINISHED_SETS else newest - 1
        for key, newest, status in sets.values_list("id", "generation", "status")
    }
    return [
        (key, generation) for key, generation in callbacks if generation <= finished.get(key, 0)
    ]


def _tell(store: Store, settled: Settled, ended: Sequence[Ended] = (), *, reason: str = "") -> None:
    """Have others told, on commit, what a step has done."""
    wake_on_commit(store, {callback.queue_name for callback in settled.released})
    tell_on_commit(store, settled, ended, reason=reason)


def _insist(
    store: Store, reach: Callable[[list[uuid.UUID]], list[uuid.UUID]], ids: list[uuid.UUID]
) -> None:
    """Call `reach`, which returns those of the ids that it did not reach because somebody had
    locked them, until it reaches all."""
    # Who holds them may be waiting for what this transaction holds.
    tries = NESTED_TRIES if connections[store.alias].in_atomic_block else TRIES
    for attempt in range(1, tries + 1):
        ids = reach(ids)
        if not ids:
            return
        time.sleep(PAUSE * attempt)
    logger.warning("subtasks not revoked, somebody has locked them count=%s", len(ids))


def _unreached(store: Store, ids: Sequence[uuid.UUID], flag: int) -> list[uuid.UUID]:
    """Those of `ids` that are neither finished nor asked to stop."""
    rows = SubtaskRecord.objects.using(store.alias).filter(id__in=ids)
    not_asked = Q(status=SubtaskStatus.RUNNING, revoke_flag__lt=flag)
    left = rows.pending() | rows.filter(not_asked)
    return list(left.values_list("id", flat=True))


# What is finished


def forget(ids: Sequence[uuid.UUID]) -> None:
    """Drop what finished subtasks came to: a member's result and errors, else the whole row.

    Raises StillUnfinished, and drops nothing, if one of them is not finished, or is needed: by a
    set that is not finished, or by a callback of it.
    """
    store = get_store()
    rows = SubtaskRecord.objects.using(store.alias)
    for batch in batches(ids, SLICE):
        _refuse_needed(store, rows.filter(id__in=batch))

    def work(found: SubtaskQuerySet) -> None:
        # As a recorder: members first. They or their sets may have been taken back meanwhile.
        list(store.locked(found, skip=False).values_list("id"))
        _refuse_needed(store, found)
        found.finished().filter(taskset=None).delete()
        _drop_values(found)

    for batch in batches(ids, SLICE):
        store.run(partial(work, rows.filter(id__in=batch)))


def _refuse_needed(store: Store, rows: SubtaskQuerySet) -> None:
    """Raise StillUnfinished if one of them, its set or a callback of that is; locks the sets."""
    if rows.unfinished().exists():
        raise StillUnfinished("A subtask that is not finished cannot be forgotten; revoke it first")
    sets: Iterable[Any] = rows.members().order_by().values_list("taskset_id", flat=True).distinct()
    for taskset_id in sorted(sets):
        store.run(partial(locked_state, store, taskset_id))
        _refuse_unfinished(store, taskset_id)


def forget_set(taskset_id: uuid.UUID) -> None:
    """Drop the return values and tracebacks of a finished set's members, in slices of a
    transaction each; arguments, reasons, groups of errors and counts stay.

    Raises StillUnfinished while the set or a callback of it is unfinished.
    """
    store = get_store()
    _refuse_unfinished(store, taskset_id)

    def work(part: SubtaskQuerySet) -> None:
        # As a recorder: members first. Its set may have been taken back to run again.
        list(store.locked(part, skip=False).values_list("id"))
        locked_state(store, taskset_id)
        _refuse_unfinished(store, taskset_id)
        _drop_values(part)

    for part in slices(store, taskset_id, start=FIRST_OF_ALL):
        store.run(partial(work, part))


def _drop_values(rows: SubtaskQuerySet) -> None:
    # The arguments stay: what failed may still be retried, and the set be run again.
    rows.finished().update(return_value=None, errors="")


def delete_set(taskset_id: uuid.UUID, *, provided: Q | None = None) -> bool:
    """Delete a finished or saved set with its subtasks; whether there was one.

    Only if the set is as in `provided`, which is asked under its lock.
    In slices, after a mark has been committed with which it can be neither retried nor rerun.
    prunetasksets ends what was interrupted. Raises StillUnfinished while the set or a callback of
    it is unfinished.
    """
    store = get_store()
    sets = TaskSetRecord.objects.using(store.alias).filter(id=taskset_id)

    def discard() -> bool:
        locked_state(store, taskset_id)
        if not sets.filter(provided or Q()).exists():
            return False
        _refuse_unfinished(store, taskset_id)
        sets.filter(discarded_at=None).update(discarded_at=Now())
        return True

    if not store.run(discard):
        return False
    # From now on nobody else does anything to it.
    for part in slices(store, taskset_id, start=FIRST_OF_ALL):
        store.run(part.delete)
    sets.filter(discarded_at__isnull=False).delete()
    return True


def _refuse_unfinished(store: Store, taskset_id: uuid.UUID) -> None:
    sets = TaskSetRecord.objects.using(store.alias)
    if sets.running().filter(id=taskset_id).exists():
        raise StillUnfinished(UNFINISHED_SET)
    callbacks = SubtaskRecord.objects.using(store.alias).filter(
        taskset_id=taskset_id, position__lt=0
    )
    if callbacks.unfinished().exists():
        raise StillUnfinished("A callback of the set is unfinished; revoke it or wait for its end")
