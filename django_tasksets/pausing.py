"""Members of paused sets wait: to and from WAITING, in slices, while the set's mark stands."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .completion import locked_state
from .models import SubtaskRecord
from .querysets import SubtaskQuerySet
from .slicing import slices
from .statuses import SubtaskStatus
from .store.contract import Store
from .store.portable import ready_when_due
from .wakeups import wake_on_commit


def hold_back(store: Store, taskset_id: uuid.UUID) -> Iterator[list[uuid.UUID]]:
    """Make the members of a paused set that no worker has claimed WAITING; yields their ids, by
    slices of a transaction each. It ends early if the set is resumed meanwhile."""
    claimable = (SubtaskStatus.READY, SubtaskStatus.SCHEDULED)
    return _shift(store, taskset_id, claimable, paused=True)


def let_go(store: Store, taskset_id: uuid.UUID) -> Iterator[list[uuid.UUID]]:
    """Let the WAITING members of a set that is not paused be claimed; as hold_back()."""
    return _shift(store, taskset_id, (SubtaskStatus.WAITING,), paused=False)


def _shift(
    store: Store, taskset_id: uuid.UUID, statuses: Sequence[str], *, paused: bool
) -> Iterator[list[uuid.UUID]]:
    for members in slices(store, taskset_id):
        part = members.filter(status__in=statuses)
        shifted = store.run(partial(_shift_slice, store, taskset_id, part, paused=paused))
        if shifted is None:
            return
        yield shifted


def _shift_slice(
    store: Store, taskset_id: uuid.UUID, members: SubtaskQuerySet, *, paused: bool
) -> list[uuid.UUID] | None:
    """The ids; None if the set has been told otherwise in the meantime."""
    state = locked_state(store, taskset_id)
    if state is None or (state.paused_at is not None) != paused:
        return None
    found = dict(store.locked(members, skip=True).values_list("id", "queue_name"))
    status: Any = SubtaskStatus.WAITING if paused else ready_when_due()
    if not paused:
        wake_on_commit(store, set(found.values()))
    SubtaskRecord.objects.using(store.alias).filter(id__in=list(found)).update(status=status)
    return list(found)
