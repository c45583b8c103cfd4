"""Gathers the members' results: in their order, or one by one as they arrive."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

from .exceptions import UnknownId
from .members import CHUNK, Members
from .progress import Progress
from .reading import Reading, is_finished, missing, settle
from .waiting import Patience, Steps

BATCH: Final = 100
"""How many results are in memory at once while they are iterated over."""


def in_order(members: Members, patience: Patience, *, propagate: bool) -> Steps[Any]:
    """All results by position, once all are there.

    With `propagate` the first failure is raised as soon as it is seen.
    """
    while True:
        progress = _look(members, patience)
        if progress is not None:
            if propagate and (progress.failed or progress.revoked):
                failure = members.first_failure()
                if failure is not None:
                    settle(failure, propagate=True)
            if progress.is_finished:
                break
        yield patience.pause()
    for start in range(0, progress.total, BATCH):
        positions = range(start, min(start + BATCH, progress.total))
        found = members.readings(positions)
        # Unfinished again: failed members may have been taken back in between.
        while not all(is_finished(reading) for reading in found.values()):
            yield patience.pause()
            found = members.readings(positions)
        yield [_value(found.get(position), propagate=propagate) for position in positions]


def as_they_finish(members: Members, patience: Patience, *, propagate: bool) -> Steps[Any]:
    """All results, each once, soon after it is there; never more than BATCH in memory."""
    undelivered = Undelivered()
    was_finished = False
    while True:
        progress = _look(members, patience)
        before = undelivered.delivered
        if progress is not None:
            undelivered.grow(progress.total)
            for chunk in undelivered.walk():
                if undelivered.delivered >= progress.finished:
                    break
                start = chunk * CHUNK
                arrived = undelivered.among(members.finished(start, start + CHUNK))
                for n in range(0, len(arrived), BATCH):
                    found = members.readings(arrived[n : n + BATCH])
                    finished = {p: reading for p, reading in found.items() if is_finished(reading)}
                    undelivered.deliver(finished)
                    yield from _in_turn(finished.values(), propagate=propagate)
            if progress.is_finished and undelivered.delivered >= progress.total:
                return
            if progress.is_finished and was_finished and before == undelivered.delivered:
                raise UnknownId("Some members of the task set have been forgotten or pruned")
            was_finished = progress.is_finished
        yield patience.pause(progressed=undelivered.delivered > before)


def _look(members: Members, patience: Patience) -> Progress | None:
    """The members' progress; raises UnknownId if the wait for them would never end."""
    progress = members.progress()
    if patience.endless and (progress is None or not progress.is_finished):
        unknown = members.unknown()
        if unknown is not None:
            raise unknown
    return progress


def _value(reading: Reading | None, *, propagate: bool) -> Any:
    if reading is not None:
        return settle(reading, propagate=propagate)
    if propagate:
        raise missing()
    return missing()


def _in_turn(finished: Iterable[Reading], *, propagate: bool) -> Iterator[list[Any]]:
    """Their values; those before a failure are delivered before it is raised."""
    values: list[Any] = []
    for reading in finished:
        try:
            values.append(settle(reading, propagate=propagate))
        except Exception:
            yield values
            raise
    yield values


class Undelivered:
    """Which positions of a set have not been delivered yet: one bit each, in chunks.

    A set of a million is never scanned as a whole while its members finish more or less in order:
    a walk begins where results last came from, and ends as soon as all are found.
    """

    def __init__(self) -> None:
        self.delivered = 0
        self._total = 0
        self._bits: dict[int, int] = {}
        self._unfilled: list[int] = []
        self._latest = 0

    def grow(self, total: int) -> None:
        """There are so many positions now."""
        self._unfilled += range(-(-self._total // CHUNK), -(-total // CHUNK))
        self._total = max(total, self._total)

    def walk(self) -> Iterator[int]:
        """The chunks worth a look, best first: on from the latest hit as long as there are hits,
        then what was passed over before it, then the rest."""
        start = bisect_left(self._unfilled, self._latest)
        passed, ahead = self._unfilled[:start], deque(self._unfilled[start:])
        before = -1
        while ahead and before != self.delivered:
            before = self.delivered
            yield ahead.popleft()
        yield from passed
        yield from ahead

    def among(self, positions: Iterable[int]) -> list[int]:
        """Those of the positions that have not been delivered, in order."""
        bits = self._bits
        return sorted(p for p in positions if not bits.get(p // CHUNK, 0) >> p % CHUNK & 1)

    def deliver(self, positions: Iterable[int]) -> None:
        """These are delivered now. All are of one chunk."""
        for position in positions:
            chunk = self._latest = position // CHUNK
            self._bits[chunk] = self._bits.get(chunk, 0) | 1 << position % CHUNK
            self.delivered += 1
            if self._bits[chunk] == _FULL:
                self._unfilled.remove(chunk)


_FULL = (1 << CHUNK) - 1
