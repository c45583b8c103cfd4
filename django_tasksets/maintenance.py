"""The upkeep that keeps a promise when processes die: heartbeats, and rescue."""

from __future__ import annotations

import datetime
import logging
import socket
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence

from django.db.models import Exists, F, OuterRef

from . import __version__
from .announcing import Announcer
from .calls import Failure
from .conf import current
from .control import revoke_rest
from .execution import Worker as Executor
from .execution import failed, out_of_time
from .models import SubtaskRecord, WorkerRecord
from .recording import Recorded, record
from .statuses import SubtaskStatus
from .store.contract import Claimed, Outcome, Store
from .store.moments import Now
from .sweeping import sweep
from .wakeups import wake_on_commit

__all__ = [
    "beat",
    "count_late",
    "mark_lost",
    "mark_silent_lost",
    "register",
    "rescue",
    "retire",
    "sweep",
]

logger = logging.getLogger("django_tasksets")

CHUNK = 200
CRASHED = "crashed"
OVERDUE = "It took longer than its time limit, and its process had to be killed"


# Heartbeats


def register(store: Store, worker_id: uuid.UUID, *, queues: Sequence[str], pid: int) -> None:
    """Write the worker down as alive; to be done before it claims anything."""
    now = store.now()
    WorkerRecord.objects.using(store.alias).create(
        id=worker_id,
        host=socket.gethostname()[:255],
        pid=pid,
        queues=",".join(queues)[:1000],
        version=__version__,
        started_at=now,
        heartbeat_at=now,
    )


def retire(store: Store, worker_id: uuid.UUID) -> None:
    """Forget a worker that holds nothing any more; what it does hold is rescued."""
    WorkerRecord.objects.using(store.alias).filter(id=worker_id).delete()


def beat(store: Store, worker_ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Confirm that these workers are alive, in the database's time; returns those that are.

    One that is missing has been declared dead: its subtasks are given to others.
    """
    ids = list(worker_ids)
    alive = WorkerRecord.objects.using(store.alias).filter(id__in=ids, lost_at=None)
    if alive.update(heartbeat_at=Now()) == len(ids):
        return set(ids)
    return set(alive.values_list("id", flat=True))


def count_late(store: Store, worker_id: uuid.UUID, count: int) -> None:
    """Count results that were refused because somebody else had decided about their subtasks."""
    worker = WorkerRecord.objects.using(store.alias).filter(id=worker_id)
    worker.update(late_results=F("late_results") + count)


def mark_lost(store: Store, worker_ids: Sequence[uuid.UUID]) -> None:
    """Declare workers dead, in a transaction of its own."""
    workers = WorkerRecord.objects.using(store.alias).filter(id__in=worker_ids, lost_at=None)
    workers.update(lost_at=Now())


def mark_silent_lost(store: Store) -> int:
    """Declare those dead whose heartbeat is older than the lease; how many."""
    deadline = store.now() - datetime.timedelta(seconds=current().LEASE)
    silent = WorkerRecord.objects.using(store.alias).filter(lost_at=None, heartbeat_at__lt=deadline)
    lost = silent.update(lost_at=Now())
    if lost:
        logger.warning("workers lost count=%s", lost)
    return lost


# Rescue


def rescue(
    store: Store,
    crashed: Collection[uuid.UUID] = (),
    overdue: Collection[uuid.UUID] = (),
    cause: str = "",
    *,
    dead: uuid.UUID | None = None,
) -> int:
    """Give back all RUNNING subtasks that have no live worker; how many. `dead` is not alive.

    Those in `crashed` were executing when their process died, and are suspects from then on, which
    workers execute alone. One that was alone has used up one of its MAX_CRASHES; with none left it
    is FAILED, and so is what was `overdue`. The others go back at no charge. Each is recorded like
    any other outcome, under the fence that the rescue found.
    """
    rescued = 0
    for worker_id, claimed in _orphans(store, dead):
        worker = Executor(store=store, id=worker_id)
        outcomes = [Outcome(one, SubtaskStatus.READY) for one in claimed]
        for place, one in enumerate(claimed):
            if one.id in crashed:
                outcomes[place] = _crashed(worker, one, cause, alone=len(crashed) == 1)
            elif one.id in overdue:
                outcomes[place] = out_of_time(worker, one, OVERDUE)
        recorded = record(store, worker_id, outcomes)
        rescued += len(recorded.written)
        _follow_up(store, recorded)
    if rescued:
        logger.warning("subtasks rescued count=%s", rescued)
    return rescued


def _orphans(store: Store, dead: uuid.UUID | None) -> Iterator[tuple[uuid.UUID, list[Claimed]]]:
    """What workers hold that are not alive, in chunks of one worker each."""
    alive = WorkerRecord.objects.using(store.alias).filter(id=OuterRef("worker_id"), lost_at=None)
    if dead is not None:
        alive = alive.exclude(id=dead)
    running = SubtaskRecord.objects.using(store.alias).filter(status=SubtaskStatus.RUNNING)
    orphaned = running.filter(~Exists(alive)).order_by("id")
    workers = orphaned.order_by().values_list("worker_id", flat=True).distinct()
    for worker_id in sorted(key for key in workers if key is not None):
        mine = orphaned.filter(worker_id=worker_id)
        keys = list(mine.values_list("id", flat=True)[:CHUNK])
        while keys:
            yield worker_id, store.claimed_rows(mine.filter(id__in=keys))
            keys = list(mine.filter(id__gt=keys[-1]).values_list("id", flat=True)[:CHUNK])


def _crashed(worker: Executor, claimed: Claimed, cause: str, *, alone: bool) -> Outcome:
    # Workers execute alone what has crashed before.
    counts = alone or claimed.crashes > 0
    if not counts or claimed.crashes + 1 < current().MAX_CRASHES:
        return Outcome(claimed, SubtaskStatus.READY, crashed=True, reason=cause)
    failure = Failure(exception_class="WorkerCrashed", message=cause, fingerprint=CRASHED)
    outcome = failed(worker, claimed, failure, reason=cause)
    outcome.crashed = True
    return outcome


def _follow_up(store: Store, recorded: Recorded) -> None:
    """What a worker does after a recording; what came too late here was the dead worker's own."""
    recorded.late.clear()
    wake_on_commit(store, recorded.ready.values())
    for key in recorded.settled.over_limit:
        revoke_rest(store, key)
    Announcer(store).announce(recorded)
