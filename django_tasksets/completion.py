"""How a set ends: members are counted off it, one transaction finishes it, callbacks go out."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .exceptions import UnreadableValue
from .models import SubtaskRecord, TaskSetRecord
from .options import stored_options
from .statuses import FINISHED_SETS, Role, SubtaskStatus, TaskSetStatus, set_outcome
from .store.contract import SetState, Store, Tally, WaitingCallback
from .store.moments import Now, from_now

NOT_NEEDED = "not needed"
TOO_MANY_FAILURES = "too many failures"


@dataclass(slots=True)
class Settled:
    """What came of counting members off their sets; to be told after the commit."""

    finished: list[SetState] = field(default_factory=list)
    released: list[WaitingCallback] = field(default_factory=list)
    """Callbacks that are not WAITING any more."""
    over_limit: list[uuid.UUID] = field(default_factory=list)
    """Sets that have just been marked: the rest of them is to be revoked."""


def settle(store: Store, tallies: Iterable[Tally]) -> Settled:
    """Count members off their sets, finish the sets that this ends, and release their callbacks.

    A step of the caller's transaction, which holds the members' locks. The set's row is locked
    from its count on, so of all transactions that end members of a set exactly one sees none
    remaining. A tally of nothing just asks whether the set is finished.
    """
    return settle_counted(store, store.count(sorted(tallies)))


def settle_counted(store: Store, states: Sequence[SetState]) -> Settled:
    """The rest of settle(), once the members are counted."""
    settled = Settled()
    settled.finished = [state for state in states if _is_done(state)]
    if settled.finished:
        store.close_sets([(state.id, outcome(state)) for state in settled.finished])
        settled.released = release(store, settled.finished)
    settled.over_limit = [state.id for state in states if _is_over_limit(state)]
    if settled.over_limit:
        TaskSetRecord.objects.using(store.alias).filter(id__in=settled.over_limit).update(
            revoke_requested_at=Now(), revoke_reason=TOO_MANY_FAILURES
        )
    return settled


def nothing(taskset_id: uuid.UUID) -> Tally:
    """The tally that ends no member: it locks the set's row, and asks whether it is finished."""
    return Tally(taskset_id, 0, 0, 0, 0)


def locked_state(store: Store, taskset_id: uuid.UUID) -> SetState | None:
    """Lock the set's row; its state, or None if it is gone. A step of a transaction.

    Who begins with this may lock members afterwards only as it skips those that are locked.
    """
    states = store.count([nothing(taskset_id)])
    return states[0] if states else None


def outcome(state: SetState) -> TaskSetStatus:
    """The final status of a set in that state.

    One that was revoked while it was open is REVOKED even if all its members succeeded: those
    that were still to be added are missing, so it is not what on_success was promised.
    """
    status = set_outcome(failed=state.failed, revoked=state.revoked)
    # A revocation seals an open set by the same statement.
    was_cut_short = state.sealed_at == state.revoke_requested_at
    return TaskSetStatus.REVOKED if was_cut_short and not state.failed else status


def callbacks_ended(store: Store, ended: Sequence[tuple[uuid.UUID, int]]) -> list[WaitingCallback]:
    """Release the on_finish of each (set, generation) whose on_success or on_failure has ended.

    A step of the transaction that ended them. Returns the released.
    """
    last = [c for c in store.waiting_callbacks(ended) if c.role == Role.ON_FINISH]
    _set_times(store, last)
    store.release_callbacks([callback.id for callback in last], [], "")
    return last


def release(store: Store, states: Sequence[SetState]) -> list[WaitingCallback]:
    """Release the callbacks of finished sets, whose rows are locked; returns the released.

    Of on_success and on_failure the one that is due, and on_finish where there is none of them:
    else it follows when that one has ended. What is released already stays as it is.
    """
    by_id = {state.id: state for state in states if state.has_callbacks}
    if not by_id:
        return []
    waiting = store.waiting_callbacks([(state.id, state.generation) for state in by_id.values()])
    by_set: dict[uuid.UUID, dict[str, WaitingCallback]] = {}
    for callback in waiting:
        by_set.setdefault(callback.taskset_id, {})[callback.role] = callback
    released: list[WaitingCallback] = []
    unneeded: list[uuid.UUID] = []
    for key, callbacks in by_set.items():
        due, other = Role.ON_FAILURE, Role.ON_SUCCESS
        if outcome(by_id[key]) == TaskSetStatus.SUCCESSFUL:
            due, other = other, due
        first = callbacks.get(due) or callbacks.get(Role.ON_FINISH)
        if first is not None:
            released.append(first)
        if other in callbacks:
            unneeded.append(callbacks[other].id)
    _set_times(store, released)
    store.release_callbacks(sorted(one.id for one in released), unneeded, NOT_NEEDED)
    return released


def _set_times(store: Store, callbacks: Iterable[WaitingCallback]) -> None:
    """Let the countdown and the expiry of callbacks begin, whose rows are locked."""
    for callback in callbacks:
        try:
            options = stored_options(callback.options)
        except UnreadableValue:
            # Its set ends all the same; who executes it will find out, and say so.
            continue
        times = {
            column: from_now(options[name])
            for name, column in (("countdown", "run_after"), ("expires", "expires_at"))
            if options.get(name) is not None
        }
        if times:
            SubtaskRecord.objects.using(store.alias).filter(id=callback.id).update(**times)


def release_again(store: Store, taskset_id: uuid.UUID) -> list[WaitingCallback]:
    """Release what a finished set should have released and has not: normally there is no such.

    A step of the caller's transaction. Returns the released.
    """
    state = locked_state(store, taskset_id)
    if state is None or state.status not in FINISHED_SETS:
        return []
    callbacks = SubtaskRecord.objects.using(store.alias).filter(
        taskset_id=taskset_id, position__lt=0, generation=state.generation
    )
    under_way = callbacks.unfinished().exclude(status=SubtaskStatus.WAITING)
    return [] if under_way.exists() else release(store, [state])


def _is_done(state: SetState) -> bool:
    return (
        state.remaining == 0
        and state.sealed_at is not None
        and state.status == TaskSetStatus.RUNNING
    )


def _is_over_limit(state: SetState) -> bool:
    if not state.remaining or state.revoke_requested_at is not None:
        return False
    limit: float = math.inf if state.max_failures is None else state.max_failures
    if state.max_failures_percent is not None and state.sealed_at is not None:
        limit = min(limit, state.total * state.max_failures_percent / 100)
    return state.failed - state.forgiven > limit
