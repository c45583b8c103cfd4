"""The sweep: a repair of what cannot break, and the end of what crashes leave half-done."""

from __future__ import annotations

import datetime
import logging
import random
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce, Least

from .announcing import announce_finished, tell_on_commit
from .completion import locked_state, nothing, release_again, settle
from .conf import current
from .control import revoke_pending, revoke_rest, revoke_set
from .execution import EXPIRED
from .models import SubtaskRecord, TaskSetRecord
from .pausing import hold_back, let_go
from .querysets import SubtaskQuerySet, TaskSetQuerySet
from .statuses import FINISHED, Role, SubtaskStatus, TaskSetStatus
from .store.contract import Store
from .store.moments import Now, from_now
from .wakeups import wake_on_commit

logger = logging.getLogger("django_tasksets")

CHUNK: Final = 500
# How long taskset_finished may be under way before it is sent again, in seconds.
ANNOUNCE_WITHIN: Final = 30
# Sets that finished longer ago than this, in seconds, are not looked at any more.
RELEASE_WITHIN: Final = 3_600
# The members of a set of so many are looked at in every sweep, of ten times as many in every tenth.
LOOKED_AT: Final = 100_000


def sweep(store: Store) -> int:
    """Repair what a bug or a hand in the database left behind; how many repairs.

    In a correct system it repairs nothing: each repair is logged as a warning. What a crash
    legitimately leaves to it (an announcement, a revocation, pause or resumption that was under
    way, an open set that nobody seals, an expiry that nobody claims) is done without. A set whose
    row somebody holds is left to the next sweep.
    """
    _announce_again(store)
    _each(store, _marked(store), partial(revoke_rest, store))
    _each(store, _half_paused(store), lambda key: list(hold_back(store, key)))
    _each(store, _half_resumed(store), lambda key: list(let_go(store, key)))
    revoke_expired(store)
    _each(store, _ids(_abandoned(store)), partial(_revoke_abandoned, store))
    repairs = _each(store, _miscounted(store), partial(_recount, store))
    repairs += _each(store, _stalled(store), partial(_finish, store))
    repairs += _each(store, _unreleased(store), partial(_release, store))
    return repairs


def _each(store: Store, keys: Iterable[uuid.UUID], step: Callable[[uuid.UUID], object]) -> int:
    """Take a step for each set; how many of them did something."""
    done = 0
    for key in keys:
        try:
            # Asked first: this connection may have no limit to how long it waits for a lock.
            if _unlocked(store, [key]):
                done += bool(step(key))
                continue
        except (OperationalError, InterfaceError) as error:
            if not store.is_lock_timeout(error):
                raise
        except Exception:
            # Its rows hold what nobody can make sense of; the other sets are in order.
            logger.exception("taskset not swept id=%s", key)
            continue
        logger.info("sweep leaves out what somebody has locked taskset=%s", key)
    return done


def _unlocked(store: Store, ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Those sets among `ids` whose rows nobody has locked at this moment."""
    sets = TaskSetRecord.objects.using(store.alias).filter(id__in=set(ids))
    if not ids:
        return set()
    return store.run(lambda: set(store.locked(sets, skip=True).values_list("id", flat=True)))


# What a crash may leave


def _announce_again(store: Store) -> None:
    before = store.now() - datetime.timedelta(seconds=ANNOUNCE_WITHIN)
    sets = TaskSetRecord.objects.using(store.alias).finished()
    missed = sets.filter(announced_at=None, finished_at__lt=before).order_by("finished_at")
    rows = list(missed.values_list("id", "status", "generation")[:CHUNK])
    # Those that are locked could not be acknowledged.
    unlocked = _unlocked(store, [key for key, *_ in rows])
    announce_finished(
        store,
        [(key, TaskSetStatus(status), number) for key, status, number in rows if key in unlocked],
    )


def _marked(store: Store) -> list[uuid.UUID]:
    """Sets that are being revoked, and have something left that no worker holds, or nothing."""
    sets = _running(store).filter(revoke_requested_at__isnull=False)
    is_over = Q(remaining=0, sealed_at__isnull=False)
    return _ids(sets.filter(is_over | Exists(_members(store).pending())))


def _half_paused(store: Store) -> list[uuid.UUID]:
    """Paused sets with members that could still be claimed."""
    claimable = _members(store).filter(status__in=(SubtaskStatus.READY, SubtaskStatus.SCHEDULED))
    return _ids(_running(store).filter(paused_at__isnull=False).filter(Exists(claimable)))


def _half_resumed(store: Store) -> list[uuid.UUID]:
    """Sets that are not paused, with members that wait all the same."""
    waiting = _members(store).filter(status=SubtaskStatus.WAITING)
    return _ids(_some_running(store).filter(paused_at=None).filter(Exists(waiting)))


def revoke_expired(store: Store) -> None:
    """Revoke what has expired before anybody claimed it, in slices of a transaction each."""
    # A callback that is not released may expire; its set's end decides what becomes of it.
    unreleased = ~Q(role=Role.MEMBER) & Q(status=SubtaskStatus.WAITING)
    pending = SubtaskRecord.objects.using(store.alias).pending().exclude(unreleased)
    expired = pending.filter(expires_at__lte=Now()).order_by("expires_at")
    while _revoke_some(store, expired[:CHUNK]):
        pass


def _revoke_some(store: Store, expired: SubtaskQuerySet) -> int:
    """Revoke those of them whose sets' rows nobody has locked; how many."""
    found: list[tuple[uuid.UUID, Any]] = list(expired.values_list("id", "taskset_id"))
    unlocked = _unlocked(store, [key for _, key in found if key is not None])
    keys = [key for key, taskset_id in found if taskset_id is None or taskset_id in unlocked]
    try:
        return revoke_pending(store, keys, reason=EXPIRED) if keys else 0
    except DatabaseError as error:
        if not store.is_lock_timeout(error):
            raise
        return 0


def _revoke_abandoned(store: Store, taskset_id: uuid.UUID) -> bool:
    """Revoke an open set, if under its lock it is abandoned still; whether it was."""

    def work() -> bool:
        locked_state(store, taskset_id)
        is_abandoned = _abandoned(store).filter(id=taskset_id).exists()
        if is_abandoned:
            revoke_set(taskset_id, reason="abandoned while open")
        return is_abandoned

    return store.run(work)


def _abandoned(store: Store) -> TaskSetQuerySet:
    """Open sets that nobody has added to for long, and in which nothing goes on."""
    timeout = current().OPEN_TIMEOUT
    if timeout is None:
        return _running(store).none()
    before = from_now(-timeout)
    sets = _running(store).filter(sealed_at=None, paused_at=None, remaining=0)
    recent = Q(enqueued_at__gte=before) | Q(finished_at__gte=before)
    return sets.filter(enqueued_at__lt=before).exclude(Exists(_members(store).filter(recent)))


# What nothing but a bug or a hand can leave


def _miscounted(store: Store) -> list[uuid.UUID]:
    """Sets whose `remaining` is not the number of their unfinished members: by one statement,
    which sees one moment, so that what is being recorded meanwhile does not matter."""
    unfinished = _members(store).unfinished().values("taskset").annotate(n=Count("pk")).values("n")
    sets = _some_running(store).annotate(unfinished=Coalesce(Subquery(unfinished), 0))
    return _ids(sets.exclude(remaining=F("unfinished")))


def _recount(store: Store, taskset_id: uuid.UUID) -> bool:
    """Set the counts right, under the set's lock; whether they were wrong."""

    def work() -> bool:
        state = locked_state(store, taskset_id)
        if state is None or state.status != TaskSetStatus.RUNNING:
            return False
        # In a statement of its own, that sees what was committed before the lock was given.
        counted = counted_members(store, taskset_id)
        sets = TaskSetRecord.objects.using(store.alias).filter(id=taskset_id)
        stored = dict(sets.values(*counted).get())
        if stored == counted:
            return False
        logger.warning("taskset repaired id=%s counts=%s were=%s", taskset_id, counted, stored)
        write_counts(sets, counted)
        _settle(store, taskset_id)
        return True

    return store.run(work)


def write_counts(taskset: TaskSetQuerySet, counted: Mapping[str, int]) -> None:
    """Write counted numbers down, and forgive no more failures than there are."""
    taskset.update(**counted, forgiven=Least("forgiven", Value(counted["failed"])))


def counted_members(store: Store, taskset_id: uuid.UUID) -> dict[str, int]:
    """The counts of a set as its members have them at this moment."""
    members = SubtaskRecord.objects.using(store.alias).filter(
        taskset_id=taskset_id, position__gte=0
    )
    counted: dict[str, int] = members.aggregate(
        total=Count("pk"),
        remaining=Count("pk", filter=~Q(status__in=FINISHED)),
        successful=Count("pk", filter=Q(status=SubtaskStatus.SUCCESSFUL)),
        failed=Count("pk", filter=Q(status=SubtaskStatus.FAILED)),
        revoked=Count("pk", filter=Q(status=SubtaskStatus.REVOKED)),
    )
    return counted


def _stalled(store: Store) -> list[uuid.UUID]:
    """Sets that have no member left and are sealed, yet RUNNING."""
    sets = _running(store).filter(remaining=0, sealed_at__isnull=False)
    # Those that are being revoked were sealed in a transaction before the one that ends them.
    return _ids(sets.filter(revoke_requested_at=None))


def _finish(store: Store, taskset_id: uuid.UUID) -> bool:
    def work() -> bool:
        if not _settle(store, taskset_id):
            return False
        logger.warning("taskset repaired id=%s: it was over, and not finished", taskset_id)
        return True

    return store.run(work)


def _settle(store: Store, taskset_id: uuid.UUID) -> bool:
    """Finish the set if it is over; whether it was."""
    settled = settle(store, [nothing(taskset_id)])
    wake_on_commit(store, {callback.queue_name for callback in settled.released})
    tell_on_commit(store, settled)
    return bool(settled.finished)


def _unreleased(store: Store) -> list[uuid.UUID]:
    """Finished sets with a callback that waits, though none goes on that it should wait for."""
    sets = TaskSetRecord.objects.using(store.alias).finished().order_by()
    callbacks = SubtaskRecord.objects.using(store.alias).filter(
        taskset=OuterRef("pk"), position__lt=0, generation=OuterRef("generation")
    )
    waiting = callbacks.filter(status=SubtaskStatus.WAITING)
    under_way = callbacks.unfinished().exclude(status=SubtaskStatus.WAITING)
    recent = sets.filter(has_callbacks=True, finished_at__gte=from_now(-RELEASE_WITHIN))
    return _ids(recent.filter(Exists(waiting)).exclude(Exists(under_way)))


def _release(store: Store, taskset_id: uuid.UUID) -> bool:
    def work() -> bool:
        released = release_again(store, taskset_id)
        wake_on_commit(store, {callback.queue_name for callback in released})
        for callback in released:
            logger.warning("taskset repaired id=%s released=%s", taskset_id, callback.id)
        return bool(released)

    return store.run(work)


def _running(store: Store) -> TaskSetQuerySet:
    return TaskSetRecord.objects.using(store.alias).running().order_by("id")


def _some_running(store: Store) -> TaskSetQuerySet:
    """Those whose members are looked at one by one in this sweep: the larger, the more seldom."""
    largest = min(LOOKED_AT / (1 - random.random()), 2**31 - 1)
    return _running(store).filter(total__lte=int(largest))


def _members(store: Store) -> SubtaskQuerySet:
    """The members of the set that a query over sets is about."""
    subtasks = SubtaskRecord.objects.using(store.alias).order_by()
    return subtasks.filter(taskset=OuterRef("pk"), position__gte=0)


def _ids(sets: TaskSetQuerySet) -> list[uuid.UUID]:
    return list(sets.values_list("id", flat=True))
