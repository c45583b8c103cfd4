"""What the flow needs of a database, said once.

Every verb runs on the calling thread's connection to `alias`. A verb is one step of a transaction
that the caller has begun with `run`, unless its docstring says that it is a transaction by itself.
Locks are waited for in one order everywhere: members by id, then sets by id, then callback rows
by id. Whatever else locks rows skips those that are locked: steering, which locks its set first.
"""

from __future__ import annotations

import abc
import datetime
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from django.db.models import Model, QuerySet

from ..calls import Seconds
from ..models import TaskSetRecord
from ..querysets import TaskSetQuerySet
from ..statuses import Role, SubtaskStatus, TaskSetStatus

# In the order of a Tally, and not in a set, which would have to hash a member to find it.
FINAL: Final = (SubtaskStatus.SUCCESSFUL, SubtaskStatus.FAILED, SubtaskStatus.REVOKED)

# The column goes no further. A number near its end was not counted by us: it stays there, so that
# the row can be claimed and nobody's claim fails for it.
LAST_CLAIM: Final = 2**31 - 1
UNREADABLE: Final = "the row cannot be read"
"""The reason of what ended because its columns hold what no code of ours writes."""
# What is read of a subtask to tell what came of it.
RESULT_FIELDS: Final = ("position", "status", "retries", "reason", "return_value", "errors")

T = TypeVar("T")
M = TypeVar("M", bound=Model)


class NewSubtask(NamedTuple):
    """A row to insert. `id` and `taskset_id` are 32 hexadecimal digits, values are codec text."""

    id: str
    taskset_id: str | None
    role: str
    position: int | None
    generation: int
    weight: int
    task_name: str
    args: str
    kwargs: str
    options: str
    links: str
    queue_name: str
    priority: int
    claim_order: int
    run_after: datetime.datetime | None
    expires_at: datetime.datetime | None
    status: str
    enqueued_at: datetime.datetime


class Claimed(NamedTuple):
    """A subtask that this worker holds; `(worker_id, claims)` is its fence."""

    id: uuid.UUID
    claims: int
    task_name: str
    args: str
    kwargs: str
    options: str
    links: str
    taskset_id: uuid.UUID | None
    role: str
    generation: int
    queue_name: str
    priority: int
    claim_order: int
    attempts: int
    retries: int
    crashes: int
    deferrals: int
    enqueued_at: datetime.datetime
    expires_at: datetime.datetime | None

    @property
    def set_that_counts(self) -> uuid.UUID | None:
        """The set of which it is a member."""
        return self.taskset_id if self.role == Role.MEMBER else None


@dataclass(slots=True)
class Outcome:
    """What became of a claimed subtask, to be recorded under its fence."""

    claimed: Claimed
    status: SubtaskStatus
    """SUCCESSFUL, FAILED or REVOKED; or READY or SCHEDULED, which give the subtask back."""
    return_value: str | None = None
    reason: str = ""
    error: str = ""
    """A line for `errors`, without its line end; empty for none."""
    error_fingerprint: str = ""
    error_class: str = ""
    error_message: str = ""
    delay: Seconds = 0
    """For SCHEDULED: how long after the recording it is due, in database time."""
    run_after: datetime.datetime | None = None
    """For SCHEDULED: when it is due, instead of a delay."""
    args: str | None = None
    """New arguments for the next execution; None keeps the old ones."""
    kwargs: str | None = None
    started: float | None = None
    """time.monotonic() when it began to execute; None if it did not."""
    retried: bool = False
    crashed: bool = False
    deferred: bool = False
    """It could not be called here and now."""
    hooks: Callable[[], None] | None = None
    """To be called once the outcome has been recorded."""
    exception: BaseException | None = None
    """What the task raised, for a caller in the same thread."""
    parked: bool = False
    """Somebody held its row, or its set's, when it was last to be recorded."""

    @property
    def is_final(self) -> bool:
        """The subtask is not given back by it."""
        return self.status in FINAL

    @property
    def has_time(self) -> bool:
        """The subtask is given back for a time to come, be it for after a pause."""
        return self.status in (SubtaskStatus.SCHEDULED, SubtaskStatus.WAITING)

    def age(self) -> Seconds:
        """How long ago it began to execute; 0 if it did not."""
        return 0.0 if self.started is None else time.monotonic() - self.started

    def called_off(self) -> Outcome:
        """The end of what would be given back, because it is revoked: there are no hooks then."""
        status = SubtaskStatus.REVOKED
        return replace(self, status=status, reason="revoked", retried=False, hooks=None)


class Tally(NamedTuple):
    """How many members of one set have just finished, by outcome."""

    taskset_id: uuid.UUID
    successful: int
    failed: int
    revoked: int
    age: Seconds
    """How long ago the first of them began to execute; 0 if none did."""


class SetState(NamedTuple):
    """A set's row as it is after a count, under its lock."""

    id: uuid.UUID
    status: str
    total: int
    remaining: int
    failed: int
    revoked: int
    generation: int
    sealed_at: object
    """Set or None, as the driver gives it."""
    revoke_requested_at: object
    paused_at: object
    has_callbacks: bool
    max_failures: int | None
    max_failures_percent: float | None
    forgiven: int
    discarded_at: object


class WaitingCallback(NamedTuple):
    """A callback row that is not released."""

    id: uuid.UUID
    taskset_id: uuid.UUID
    role: str
    generation: int
    queue_name: str
    options: str


class Ended(NamedTuple):
    """A subtask that was ended without being executed."""

    id: uuid.UUID
    taskset_id: uuid.UUID | None
    role: str
    generation: int
    task_name: str


class Held(NamedTuple):
    """What has been asked of a subtask that a worker holds."""

    id: uuid.UUID
    claims: int
    revoke_flag: int


class Store(abc.ABC):
    """The statements that enqueueing, claiming and recording are made of."""

    claims_at_once: int = 500
    """How many subtasks a claim takes at most."""
    records_at_once: int = 300
    """How many outcomes a recording has at most."""
    set_in_one_statement: int = 0
    """How many subtasks insert_set() inserts by the same statement as their set."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    # Connections

    @abc.abstractmethod
    def dedicate(self) -> None:
        """Give the calling thread a new connection of its own for bookkeeping, set up as this
        database is best used, in place of the one that it has, which is closed."""

    @abc.abstractmethod
    def reconnect(self) -> None:
        """Close and open a dedicated connection; raises the database's error if it cannot."""

    # Transactions

    @abc.abstractmethod
    def run(self, work: Callable[[], T]) -> T:
        """Call `work` in one transaction and commit it.

        A deadlock or serialisation error rolls back and calls `work` again, up to ten times with
        jitter, unless the caller's own transaction is open around it: then `work` is a savepoint
        and the error is raised. What `work` leaves outside the database it leaves for each call.
        """

    @abc.abstractmethod
    def run_statement(self, work: Callable[[], T]) -> T:
        """What run() does, for `work` that executes one statement: it is a transaction by itself,
        and takes one round trip."""

    @abc.abstractmethod
    def locked(self, queryset: QuerySet[M, M], *, skip: bool) -> QuerySet[M, M]:
        """`queryset` in the order of ids, to be read with its rows locked, as far as the database
        can. With `skip` it leaves out what somebody else has locked; without, it waits."""

    @abc.abstractmethod
    def is_transient(self, error: BaseException) -> bool:
        """Whether the transaction that raised `error` may well succeed if it is run again."""

    @abc.abstractmethod
    def is_lock_timeout(self, error: BaseException) -> bool:
        """Whether `error` says that a row was locked by somebody for too long."""

    @abc.abstractmethod
    def is_refusal(self, error: BaseException) -> bool:
        """Whether `error` is about the values: it comes again as often as they are written."""

    @abc.abstractmethod
    def now(self) -> datetime.datetime:
        """The database's time; every comparison with a stored time uses it."""

    has_one_writer: bool = False
    """Whether all who write wait for one lock: what a thread of this process that has it waits for
    besides, all others wait for too."""

    @abc.abstractmethod
    def pace(self) -> None:
        """Make way, between two executions, for a thread of this process in whose interest it is
        that it gets on. Returns soon."""

    # Enqueue

    @abc.abstractmethod
    def insert_set(self, record: TaskSetRecord, rows: Sequence[NewSubtask]) -> None:
        """Insert a set's row, with all its columns, and a few of its subtasks: together in one
        statement if there are not more than `set_in_one_statement`. Raises IntegrityError if an id
        or a position is taken."""

    @abc.abstractmethod
    def insert_sets(self, records: Sequence[TaskSetRecord]) -> None:
        """Insert the rows of many sets. A step of a transaction."""

    @abc.abstractmethod
    def insert(self, rows: Iterable[NewSubtask]) -> None:
        """Insert subtasks, in bulk, on the caller's transaction; a single one in one statement.
        Raises IntegrityError if an id or a position is taken."""

    def insert_and_notify(
        self, rows: Sequence[NewSubtask], record: TaskSetRecord | None = None
    ) -> bool:
        """Insert a few subtasks, and their set if there is one, and notify() once that is
        committed, in a single round trip; whether that could be done. If not, nothing was; only
        where can_notify() is true. Raises IntegrityError if an id or a position is taken."""
        return False

    # Claim

    @abc.abstractmethod
    def claim(self, worker_id: uuid.UUID, queues: Sequence[str], limit: int) -> list[Claimed]:
        """Make up to `limit` READY subtasks RUNNING for the worker; a transaction by itself.

        They come in the order of (priority, highest first; claim_order). Rows that somebody else
        has locked are passed over. No queues means all queues.
        """

    def claim_on(self, worker_id: uuid.UUID, last: Claimed, limit: int) -> list[Claimed]:
        """Go on where a claim has ended: claim up to `limit` of what is not before `last`, in its
        queue and with its priority; a transaction by itself. A store for which claim() is as fast
        may leave all of it to that."""
        return []

    @abc.abstractmethod
    def claim_ids(self, worker_id: uuid.UUID, ids: Sequence[uuid.UUID]) -> list[Claimed]:
        """Make those of `ids` that are READY RUNNING for the worker; a transaction by itself."""

    @abc.abstractmethod
    def look_ahead(self, queues: Sequence[str], limit: int) -> list[tuple[uuid.UUID, str]]:
        """The ids and task names of some that are READY and have not crashed: up to `limit` of
        each of the queues, in which they come in the order of a claim. No queues means all. Reads
        nothing else, but for what has crashed."""

    @abc.abstractmethod
    def claimed_rows(self, rows: QuerySet[Any, Any]) -> list[Claimed]:
        """The rows as they are, as a claim has them. One that cannot be read is FAILED at once, so
        that it is in nobody's way; if it is a member, the sweep counts it."""

    # Record

    @abc.abstractmethod
    def finish(self, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Write the outcomes, one for a subtask, to the rows still RUNNING under their fences.

        Returns what was written. A row that does not match is untouched: somebody else decided
        about it, and its outcome here is late. What would give back a subtask that was asked to be
        revoked, itself or with its set, is called off: that is its end. A member of a paused set
        is given back to WAITING. In both cases a changed copy of the outcome is returned.
        """

    def finishing(
        self,
        worker_id: uuid.UUID,
        outcomes: Sequence[Outcome],
        tallies: Callable[[], Sequence[Tally]],
    ) -> Callable[[], list[SetState]] | None:
        """What finish() and then count() would do if all of the outcomes can be written as they
        are, which is the rule; to be called in a transaction, in which `tallies` are asked for.
        Raises SomeDiffer if not all can: roll back, and ask the two themselves. None if the store
        has no such way for these.

        What can be done before the transaction is done now: where there is one writer at a time,
        all others wait for whoever has one open."""
        return None

    @abc.abstractmethod
    def recorded(self, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Those outcomes that their rows have already, under their own fences: recorded by this
        worker in a transaction whose commit was not acknowledged."""

    @abc.abstractmethod
    def free(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Those outcomes whose rows, and whose sets' rows, nobody has locked at this moment; never
        waits. A transaction by itself."""

    @abc.abstractmethod
    def update_set(self, sets: TaskSetQuerySet, taskset_id: uuid.UUID, **changes: Any) -> bool:
        """Change the row of a set if it is one of `sets`; whether it is. A step of a transaction,
        which waits for nobody but those who hold that row."""

    @abc.abstractmethod
    def count(self, tallies: Sequence[Tally]) -> list[SetState]:
        """Lock the sets in the order of their ids, and move members from `remaining` to their
        outcome; a set begins with the first of them that had begun to execute. Returns the sets'
        states after it. Sets that are gone are left out."""

    @abc.abstractmethod
    def close_sets(self, final: Sequence[tuple[uuid.UUID, TaskSetStatus]]) -> None:
        """Give sets that are locked, sealed, RUNNING and without remaining members their final
        status and their `finished_at`."""

    @abc.abstractmethod
    def waiting_callbacks(self, sets: Sequence[tuple[uuid.UUID, int]]) -> list[WaitingCallback]:
        """Lock and return the WAITING callbacks of (set, generation), in the order of ids."""

    @abc.abstractmethod
    def release_callbacks(
        self, released: Sequence[uuid.UUID], unneeded: Sequence[uuid.UUID], reason: str
    ) -> None:
        """Make locked callback rows READY, and the ones that are not needed REVOKED."""

    @abc.abstractmethod
    def return_values(
        self, taskset_id: uuid.UUID, after: int, limit: int
    ) -> Sequence[tuple[int, str | None]]:
        """The positions of up to `limit` members behind position `after`, in their order, and what
        they returned, as text; None for what was forgotten, or has not been returned."""

    # Read

    @abc.abstractmethod
    def result_row(self, subtask_id: uuid.UUID) -> Sequence[Any] | None:
        """What RESULT_FIELDS of a subtask hold; None for an id that is unknown. Who waits for a
        result asks again and again, at the side of the worker that makes it."""

    # Revoke

    @abc.abstractmethod
    def revoke(self, ids: Sequence[uuid.UUID], reason: str) -> list[Ended]:
        """Make those of `ids` that are WAITING, READY or SCHEDULED REVOKED; returns them. Rows
        that somebody has locked are passed over. The members among them are still to be counted,
        in the same transaction."""

    @abc.abstractmethod
    def flag(self, ids: Sequence[uuid.UUID], flag: int) -> int:
        """Ask the workers that hold those of `ids` that are RUNNING to revoke them; how many. Rows
        that somebody has locked are passed over."""

    # Watch

    @abc.abstractmethod
    def flagged(self, worker_id: uuid.UUID) -> list[Held]:
        """The worker's RUNNING subtasks that are to be revoked, themselves or with their set."""

    @abc.abstractmethod
    def promote(self, limit: int) -> set[str]:
        """Make up to `limit` due SCHEDULED subtasks READY, those of paused sets WAITING; a
        transaction by itself. Returns the names of the queues that have more to claim now."""

    # Wake-ups

    hears: bool = False
    """Whether the database itself tells of commits: listen() returns a listener."""

    def can_notify(self) -> bool:
        """Whether notify() does anything."""
        return False

    def notify(self, queues: Iterable[str]) -> None:
        """Have workers that wait for one of the queues begin as soon as may be; to be called after
        the commit, outside a transaction, and only where can_notify() is true."""
        raise NotImplementedError

    def listen(self) -> Listener | None:
        """A listener for this thread, on its dedicated connection, which can be used for other
        things between two waits; None where there is no such thing."""
        return None


class SomeDiffer(Exception):
    """Of a batch that was thought to be whole, some are called off, or somebody else's by now."""


class Bell(Protocol):
    """What rings inside this process: readable, as `select` means it, once it has rung."""

    def fileno(self) -> int:
        """The file descriptor to select on."""


class Listener(abc.ABC):
    """Waits for hints that work is there. A hint may be lost, doubled or wrong."""

    @abc.abstractmethod
    def wait(self, timeout: Seconds, bell: Bell) -> bool:
        """Block until a hint comes, the bell rings, or `timeout` has passed; whether it was a hint.

        Raises the database's errors when its connection is gone; make a new listener then.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give the connection back."""


def in_claim_order(rows: list[Claimed]) -> list[Claimed]:
    """The rows as a claim returns them; sorted in place."""
    rows.sort(key=lambda row: (-row.priority, row.claim_order))
    return rows


def next_claim(claims: int) -> int:
    """The number of the claim after so many."""
    return min(claims, LAST_CLAIM - 1) + 1


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of at most `size`."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
