"""Outcomes, sorted by what follows from them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from .statuses import Role, SubtaskStatus
from .store.contract import FINAL, Outcome, Tally

# As rows have them: an enumeration takes its time to say what its members are.
MEMBER: Final = Role.MEMBER.value
SUCCESSFUL: Final = SubtaskStatus.SUCCESSFUL
BEFORE_THE_LAST: Final = (Role.ON_SUCCESS.value, Role.ON_FAILURE.value)


@dataclass(slots=True)
class Counts:
    """The members of one set that have finished."""

    by_outcome: list[int] = field(default_factory=lambda: [0] * len(FINAL))
    starts: list[float] = field(default_factory=list)
    """The time.monotonic() at which each began that did."""


@dataclass(slots=True)
class Consequences:
    """What is to be done in the transaction that has written some outcomes."""

    members: dict[uuid.UUID, Counts] = field(default_factory=dict)
    """The members that have finished, counted by set."""
    callbacks: list[tuple[uuid.UUID, int]] = field(default_factory=list)
    """The (set, generation) whose on_success or on_failure has ended: on_finish may follow it."""
    linked: list[Outcome] = field(default_factory=list)
    """The ends of what has links."""
    failed: list[Outcome] = field(default_factory=list)
    """Failures, of members and of others."""
    ready: dict[uuid.UUID, str] = field(default_factory=dict)
    """What is given back to be claimed at once, and its queue."""

    def tallies(self) -> list[Tally]:
        """The members that have finished, as they are to be counted now, in the sets' order."""
        now = time.monotonic()
        tallies: list[Tally] = []
        for key, counts in self.members.items():
            successful, failed, revoked = counts.by_outcome
            age = now - min(counts.starts) if counts.starts else 0.0
            tallies.append(Tally(key, successful, failed, revoked, age))
        return sorted(tallies)


def consequences(outcomes: Iterable[Outcome]) -> Consequences:
    """What follows from the outcomes, found out on one walk over them."""
    found = Consequences()
    key: uuid.UUID | None = None
    for outcome in outcomes:
        claimed, status = outcome.claimed, outcome.status
        if claimed.links or status != SUCCESSFUL or claimed.role != MEMBER:
            _add_rarer(found, outcome)
            if status not in FINAL or claimed.role != MEMBER:
                continue
        its = claimed.taskset_id
        if its is None:
            continue
        if its != key:  # Those of one set come together.
            key = its
            counts = found.members.setdefault(its, Counts())
        counts.by_outcome[FINAL.index(status)] += 1
        if outcome.started is not None:
            counts.starts.append(outcome.started)
    return found


def _add_rarer(found: Consequences, outcome: Outcome) -> None:
    """What follows from others than members that were successful and have no links."""
    claimed = outcome.claimed
    if not outcome.is_final:
        if outcome.status == SubtaskStatus.READY:
            found.ready[claimed.id] = claimed.queue_name
        return
    if claimed.links:
        found.linked.append(outcome)
    if outcome.status == SubtaskStatus.FAILED:
        found.failed.append(outcome)
    if claimed.role in BEFORE_THE_LAST and claimed.taskset_id is not None:
        found.callbacks.append((claimed.taskset_id, claimed.generation))
