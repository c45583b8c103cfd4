"""Writes down what became of claimed subtasks, and everything that follows from it, at once."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from django.db import DatabaseError

from .completion import Settled, callbacks_ended, settle_counted
from .consequences import Consequences, consequences
from .errorgroups import count_errors
from .failures import MAX_MESSAGE, describe, error_line
from .linking import enqueue_links
from .statuses import SubtaskStatus
from .store.contract import Outcome, SetState, SomeDiffer, Store

logger = logging.getLogger("django_tasksets")

# How much text goes into one transaction, unless one outcome has more: drivers and servers have
# limits of their own for what they take at once.
MAX_BYTES: Final = 4_000_000


@dataclass(slots=True)
class Recorded:
    """What a recording did; to be told after its commit."""

    written: list[Outcome] = field(default_factory=list)
    late: list[Outcome] = field(default_factory=list)
    """Outcomes that came after somebody else had decided about their subtasks."""
    parked: list[Outcome] = field(default_factory=list)
    """Outcomes whose rows, or whose sets' rows, somebody holds: not recorded, to be tried again."""
    settled: Settled = field(default_factory=Settled)
    ready: dict[uuid.UUID, str] = field(default_factory=dict)
    """Subtasks that became READY by it, and their queues: callbacks, links, what is given back."""

    def absorb(self, other: Recorded) -> None:
        """Add what another recording did."""
        self.written += other.written
        self.late += other.late
        self.parked += other.parked
        self.settled.finished += other.settled.finished
        self.settled.released += other.settled.released
        self.settled.over_limit += other.settled.over_limit
        self.ready |= other.ready


def record(store: Store, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> Recorded:
    """Record a batch: as a rule in one transaction.

    What somebody holds is parked, and a result that the database refuses becomes a failure of its
    subtask; neither takes the others with it. Errors of a connection that is gone are raised:
    record the same outcomes again then, those that were committed unnoticed are recognised by
    their fences.
    """
    recorded, wanted = Recorded(), list(outcomes)
    # Numbers are told apart much faster than UUIDs.
    if len({outcome.claimed.id.int for outcome in outcomes}) != len(wanted):
        # One that returned while it was being given back has two; the first one counts.
        first = {outcome.claimed.id: outcome for outcome in reversed(outcomes)}
        recorded.late = [o for o in outcomes if first[o.claimed.id] is not o]
        wanted = [o for o in outcomes if first[o.claimed.id] is o]
    if any(outcome.parked for outcome in wanted):
        # Ask before waiting again for what was held the last time.
        held, wanted = _held_and_free(store, wanted)
        recorded.parked += held
    for portion in _portions(wanted):
        recorded.absorb(_record_all(store, worker_id, portion))
    return recorded


def _record_all(store: Store, worker_id: uuid.UUID, outcomes: list[Outcome]) -> Recorded:
    try:
        try:
            return store.run(_recording(store, worker_id, outcomes))
        except SomeDiffer:
            expected = consequences(outcomes)
            return store.run(lambda: _record_held(store, worker_id, outcomes, expected))
    except DatabaseError as error:
        if store.is_refusal(error):
            if len(outcomes) == 1:
                return _record_refused(store, worker_id, outcomes[0], error)
            middle = len(outcomes) // 2
            parts, recorded = [outcomes[:middle], outcomes[middle:]], Recorded()
        elif store.is_lock_timeout(error):
            held, free = _held_and_free(store, outcomes)
            # Those who held something then may have let go of it by now.
            parts = [free] if held and free else _by_set(free)
            if len(parts) == 1 and not held:
                held, parts = parts.pop(), []
            recorded = Recorded(parked=held)
        else:
            raise
    for part in parts:
        recorded.absorb(_record_all(store, worker_id, part))
    for outcome in recorded.parked:
        outcome.parked = True
    return recorded


def _portions(outcomes: Iterable[Outcome]) -> Iterator[list[Outcome]]:
    portion: list[Outcome] = []
    size = 0
    for outcome in outcomes:
        size += len(outcome.return_value or "") + len(outcome.error)
        size += len(outcome.args or "") + len(outcome.kwargs or "")
        if portion and size > MAX_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(outcome)
    if portion:
        yield portion


def _held_and_free(
    store: Store, outcomes: Sequence[Outcome]
) -> tuple[list[Outcome], list[Outcome]]:
    free = store.free(outcomes)
    return _without(outcomes, free), free


def _by_set(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """The outcomes that lock the same set's row together, the others one by one."""
    parts: dict[uuid.UUID, list[Outcome]] = {}
    for outcome in outcomes:
        key = outcome.claimed.set_that_counts or outcome.claimed.id
        parts.setdefault(key, []).append(outcome)
    return list(parts.values())


def _record_refused(
    store: Store, worker_id: uuid.UUID, outcome: Outcome, error: DatabaseError
) -> Recorded:
    """Record, in place of what the database will not take, that it would not."""
    claimed = outcome.claimed
    # Databases go on in further lines to quote the row, with its values.
    first_line = str(error).partition("\n")[0]
    # The words about it must not be refused for the same characters.
    message = first_line[:MAX_MESSAGE].encode("ascii", "backslashreplace").decode()
    failure = replace(describe(error), message=message, traceback="", args=None)
    logger.error("subtask refused id=%s error=%r", claimed.id, message)
    failed = Outcome(
        claimed._replace(links=""),
        SubtaskStatus.FAILED,
        reason="the database refused the result",
        error=error_line(failure, worker_id, claimed),
        error_class=failure.exception_class,
        error_message=message,
        started=outcome.started,
    )
    # Once more without counting the attempt, whose number may be at its column's end.
    for one in (failed, replace(failed, started=None)):
        try:
            return store.run(_recording(store, worker_id, [one]))
        except DatabaseError as again:
            if not store.is_refusal(again):
                raise
    # It was not the result. Counts that somebody has changed by hand refuse to be counted down, for
    # example, and that lasts until the sweep has repaired them.
    outcome.parked = True
    return Recorded(parked=[outcome])


def _recording(
    store: Store, worker_id: uuid.UUID, outcomes: list[Outcome]
) -> Callable[[], Recorded]:
    """The work of the transaction. All that can be known before it begins is found out now. May
    raise SomeDiffer, if not all can be written."""
    expected = consequences(outcomes)
    finish = store.finishing(worker_id, outcomes, expected.tallies)
    if finish is None:
        return lambda: _record_held(store, worker_id, outcomes, expected)

    def work() -> Recorded:
        states = finish()
        return _follow(store, Recorded(written=list(outcomes)), expected, states)

    return work


def _record_held(
    store: Store, worker_id: uuid.UUID, outcomes: list[Outcome], expected: Consequences
) -> Recorded:
    """Record those of the outcomes that the worker still holds."""
    written = store.finish(worker_id, outcomes)
    missing: list[Outcome] = []
    if set(map(id, written)) != set(map(id, outcomes)):
        expected = consequences(written)
        missing = _without(outcomes, written)
    # What an unacknowledged commit has written is told to hooks and receivers like anything else,
    # but counts for nothing again.
    mine = store.recorded(worker_id, missing) if missing else []
    recorded = Recorded(written=[*written, *mine], late=_without(missing, mine))
    return _follow(store, recorded, expected, store.count(expected.tallies()))


def _follow(
    store: Store, recorded: Recorded, followed: Consequences, states: Sequence[SetState]
) -> Recorded:
    """Do what follows from what has been written and counted, and note it."""
    recorded.ready = dict(followed.ready)
    recorded.settled = settle_counted(store, states)
    released = list(recorded.settled.released)
    if followed.callbacks:
        released += callbacks_ended(store, followed.callbacks)
    if followed.linked:
        links = enqueue_links(store, followed.linked)
        recorded.ready |= {uuid.UUID(row.id): row.queue_name for row in links}
    if followed.failed:
        count_errors(store, followed.failed)
    recorded.ready |= {callback.id: callback.queue_name for callback in released}
    return recorded


def _without(outcomes: Iterable[Outcome], others: Iterable[Outcome]) -> list[Outcome]:
    ids = {outcome.claimed.id for outcome in others}
    return [outcome for outcome in outcomes if outcome.claimed.id not in ids]
