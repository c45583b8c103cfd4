"""The subtasks of one set, a slice at a time: what is done to many of them holds few at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .querysets import SubtaskQuerySet

SLICE: Final = 500


def slices(subtasks: SubtaskQuerySet, size: int = SLICE) -> Iterator[SubtaskQuerySet]:
    """Parts of `subtasks`, which are of one set, each over `size` positions, in their order.

    Each is looked for when the one before it has been dealt with, and none is empty then. A part
    has both its ends in the query, so that any database finds it by the index over positions.
    """
    start = _first(subtasks)
    while start is not None:
        end = start + size
        yield subtasks.filter(position__gte=start, position__lt=end)
        start = _first(subtasks.filter(position__gte=end))


def _first(subtasks: SubtaskQuerySet) -> int | None:
    return subtasks.order_by("position").values_list("position", flat=True).first()
