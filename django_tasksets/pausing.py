"""Members of paused sets wait: to and from WAITING, in chunks, while the set's mark stands."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .completion import nothing
from .models import SubtaskRecord
from .querysets import SubtaskQuerySet
from .statuses import SubtaskStatus
from .store.contract import SetState, Store
from .store.portable import ready_when_due
from .wakeups import wake_on_commit

CHUNK = 500


def hold_back(store: Store, taskset_id: uuid.UUID) -> Iterator[list[uuid.UUID]]:
    """Make the members of a paused set that no worker has claimed WAITING; yields their ids, by
    chunks of a transaction each. It ends early if the set is resumed meanwhile."""
    claimable = (SubtaskStatus.READY, SubtaskStatus.SCHEDULED)
    return _shift(store, taskset_id, claimable, paused=True)


def let_go(store: Store, taskset_id: uuid.UUID) -> Iterator[list[uuid.UUID]]:
    """Let the WAITING members of a set that is not paused be claimed; as hold_back()."""
    return _shift(store, taskset_id, (SubtaskStatus.WAITING,), paused=False)


def locked_state(store: Store, taskset_id: uuid.UUID) -> SetState | None:
    """Lock the set's row; its state, or None if it is gone. A step of a transaction."""
    states = store.count([nothing(taskset_id)])
    return states[0] if states else None


def _shift(
    store: Store, taskset_id: uuid.UUID, statuses: Sequence[str], *, paused: bool
) -> Iterator[list[uuid.UUID]]:
    position = 0
    members = SubtaskRecord.objects.using(store.alias).filter(
        taskset_id=taskset_id, position__gte=0, status__in=statuses
    )
    while True:
        chunk = members.filter(position__gte=position).order_by("position")[:CHUNK]
        keys = list(chunk.values_list("position", "id"))
        if not keys:
            return
        position = (keys[-1][0] or 0) + 1
        wanted = members.filter(id__in=[key for _, key in keys])
        shifted = store.run(partial(_shift_chunk, store, taskset_id, wanted, paused=paused))
        if shifted is None:
            return
        yield shifted


def _shift_chunk(
    store: Store, taskset_id: uuid.UUID, members: SubtaskQuerySet, *, paused: bool
) -> list[uuid.UUID] | None:
    """The ids; None if the set has been told otherwise in the meantime."""
    found = dict(store.locked(members, skip=True).values_list("id", "queue_name"))
    state = locked_state(store, taskset_id)
    if state is None or (state.paused_at is not None) != paused:
        return None
    status: Any = SubtaskStatus.WAITING if paused else ready_when_due()
    if not paused:
        wake_on_commit(store, set(found.values()))
    SubtaskRecord.objects.using(store.alias).filter(id__in=list(found)).update(status=status)
    return list(found)
