"""Memory that a supervisor shares with its children: who is alive, who executes what, and bells."""

from __future__ import annotations

import mmap
import struct
import time
import uuid
from typing import Final

from ..calls import Seconds
from ..conf import current
from ..wakeups import LocalBell

DEAD: Final = -1.0
# A place begins with the moment when its last heartbeat was confirmed, how it ended, whether it
# rests, and whether it waits to be told of work.
MOMENT: Final = struct.Struct("d")
HEADER_SIZE: Final = 2 * MOMENT.size
# After the places: how many processes have died, and of how many what they held is given back.
DEATHS: Final = struct.Struct("Q")
# After them: the number of the place that listens for hints, counted from 1; or 0.
NUMBER: Final = struct.Struct("Q")
# How a process ended, by its own account; tasks may end it with any code.
IN_ORDER: Final = 1
GAVE_UP: Final = 2
# What a slot executes, and the time.monotonic() at which its time is up; 0 if it never is.
SLOT: Final = struct.Struct("16sd")
NOTHING: Final = bytes(16)


class Board:
    """One place for each worker process. Made before the first fork, so that all share it.

    A place outlives its process: whoever buries a process can read what it was executing.
    """

    def __init__(self, *, places: int, slots: int) -> None:
        self.places = places
        self._slots = slots
        self._size = HEADER_SIZE + slots * SLOT.size
        self._deaths = places * self._size
        self._duty = self._deaths + 2 * DEATHS.size
        self._memory = mmap.mmap(-1, self._duty + NUMBER.size)
        self.bells = [LocalBell() for _ in range(places)]

    def confirm(self, place: int, moment: float) -> None:
        """Note the time.monotonic() at which the worker's heartbeat was confirmed, or DEAD."""
        MOMENT.pack_into(self._memory, place * self._size, moment)

    def confirmed(self, place: int) -> float:
        """When the worker's last heartbeat was confirmed, or DEAD."""
        (moment,) = MOMENT.unpack_from(self._memory, place * self._size)
        return float(moment)

    def silence(self, place: int) -> Seconds:
        """For how long nobody has confirmed that the worker lives; for ever if it is DEAD."""
        confirmed = self.confirmed(place)
        return float("inf") if confirmed == DEAD else time.monotonic() - confirmed

    def is_known(self, place: int) -> bool:
        """Whether somebody has confirmed of late that the worker lives. Else others are given its
        subtasks soon, and it must neither claim nor execute any."""
        return self.silence(place) < current().LEASE * 0.8

    def leave(self, place: int) -> None:
        """Note that the process ends in order: it executes nothing, and holds nothing."""
        self._memory[place * self._size + MOMENT.size] = IN_ORDER

    def has_left(self, place: int) -> bool:
        """Whether the place's process has ended in order."""
        return self._memory[place * self._size + MOMENT.size] == IN_ORDER

    def give_up(self, place: int) -> None:
        """Note that the process ends itself, because of the database or of us: it may hold
        subtasks, none of which is to blame."""
        self._memory[place * self._size + MOMENT.size] = GAVE_UP

    def has_given_up(self, place: int) -> bool:
        """Whether the place's process has ended itself."""
        return self._memory[place * self._size + MOMENT.size] == GAVE_UP

    def begin(self, place: int, slot: int, subtask_id: uuid.UUID, until: float = 0.0) -> None:
        """Note that the slot executes a subtask, and at which time.monotonic() its time is up."""
        SLOT.pack_into(self._memory, self._slot(place, slot), subtask_id.bytes, until)

    def end(self, place: int, slot: int) -> None:
        """Note that the slot executes nothing."""
        SLOT.pack_into(self._memory, self._slot(place, slot), NOTHING, 0.0)

    def executing(self, place: int) -> list[uuid.UUID]:
        """What the place's process executes, or was executing when it died."""
        return [uuid.UUID(bytes=key) for key, _ in self._executing(place)]

    def overdue(self, place: int, moment: float) -> list[uuid.UUID]:
        """That of it whose time was up at `moment`."""
        found = self._executing(place)
        return [uuid.UUID(bytes=key) for key, until in found if until and until < moment]

    def _executing(self, place: int) -> list[tuple[bytes, float]]:
        start, end = self._slot(place, 0), self._slot(place, self._slots)
        slots = SLOT.iter_unpack(self._memory[start:end])
        return [(key, until) for key, until in slots if key != NOTHING]

    def _slot(self, place: int, slot: int) -> int:
        return place * self._size + HEADER_SIZE + slot * SLOT.size

    def rest(self, place: int, *, rests: bool) -> None:
        """Note whether the process is known to hold nothing; at its start it is not."""
        self._memory[place * self._size + MOMENT.size + 1] = rests

    def others_rest(self, place: int) -> bool:
        """Whether no process in another place holds anything."""
        return all(
            self.has_left(other) or self._memory[other * self._size + MOMENT.size + 1]
            for other in range(self.places)
            if other != place
        )

    @property
    def is_mourning(self) -> bool:
        """What a dead process held may not have been given back yet."""
        died, buried = struct.unpack_from("QQ", self._memory, self._deaths)
        return bool(died > buried)

    def mourn(self, number: int) -> None:
        """Note that so many processes have died."""
        DEATHS.pack_into(self._memory, self._deaths, number)

    def bury(self, number: int) -> None:
        """Note that what the first so many of them held is given back."""
        DEATHS.pack_into(self._memory, self._deaths + DEATHS.size, number)

    # Hints that there is work wake one process, which wakes the others if there is more than it
    # takes: together they would be in each other's way, and all but one for nothing.

    def listens(self, place: int) -> bool:
        """Whether it is for this process to listen for hints: it is, or nobody does. Two that ask
        at the same moment may both be told so."""
        (number,) = NUMBER.unpack_from(self._memory, self._duty)
        other = number - 1
        if number and other != place and self.is_known(other) and not self.has_left(other):
            return False
        NUMBER.pack_into(self._memory, self._duty, place + 1)
        return True

    def listens_no_more(self, place: int) -> None:
        """Note that the process has enough to do: if it was the one that listened, one of those
        who wait is to do so."""
        if NUMBER.unpack_from(self._memory, self._duty) == (place + 1,):
            NUMBER.pack_into(self._memory, self._duty, 0)
            self.ring_waiting(place)

    def relieve(self) -> None:
        """Note that nobody listens: whoever should have has not heard."""
        NUMBER.pack_into(self._memory, self._duty, 0)

    def wait(self, place: int, *, waits: bool) -> None:
        """Note whether the process waits to be told by another one that there is work."""
        self._memory[place * self._size + MOMENT.size + 2] = waits

    def ring_waiting(self, place: int) -> None:
        """Wake all other processes that wait to be told: there may be more work than this one
        takes, or nobody who listens."""
        for other in range(self.places):
            if other != place and self._memory[other * self._size + MOMENT.size + 2]:
                self.bells[other].ring()

    def clear(self, place: int) -> None:
        """Make the place ready for another process."""
        start = place * self._size
        self._memory[start : start + self._size] = bytes(self._size)
        self.listens_no_more(place)

    def ring_all(self) -> None:
        """Wake all workers that wait."""
        for bell in self.bells:
            bell.ring()
