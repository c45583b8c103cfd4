"""The subtasks of one set, a slice at a time: what is done to many of them holds few at once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Final

from .models import SubtaskRecord
from .querysets import SubtaskQuerySet
from .store.contract import Store

SLICE: Final = 500


def slices(
    store: Store, taskset_id: uuid.UUID, *, start: int = 0, size: int = SLICE
) -> Iterator[SubtaskQuerySet]:
    """The subtasks of a set from position `start` on, in parts of `size` positions, in no order.

    Each part is looked for when the one before it has been dealt with; some may be empty of what
    is wanted of them. Positions alone are asked for from part to part, with one bound, and a part
    has both its bounds: so any database goes by the index over positions.
    """
    subtasks = SubtaskRecord.objects.using(store.alias).filter(taskset_id=taskset_id).order_by()
    while True:
        later = subtasks.filter(position__gte=start).order_by("position")
        first = later.values_list("position", flat=True).first()
        if first is None:
            return
        start = first + size
        yield subtasks.filter(position__gte=first, position__lt=start)
