"""How far a task set is."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Final

from django.utils import timezone

from .statuses import FINISHED_SETS, TaskSetStatus, set_outcome

ETA_AFTER = datetime.timedelta(seconds=5)
ETA_AFTER_COUNT = 10
BAR_WIDTH = 30

COLUMNS: Final = (
    "status", "total", "remaining", "successful", "failed", "revoked", "started_at",
    "finished_at", "sealed_at", "paused_at", "revoke_requested_at",
)  # fmt: skip
"""What progress_of() needs of a set's row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The counts of a task set at one moment. They add up: all come from one row."""

    status: TaskSetStatus
    total: int
    remaining: int = 0
    successful: int = 0
    failed: int = 0
    revoked: int = 0
    started_at: datetime.datetime | None = None
    """When the first member began to execute."""
    finished_at: datetime.datetime | None = None
    is_open: bool = False
    """Members may still be added, so that total is not the last word."""
    is_paused: bool = False
    is_revoking: bool = False
    read_at: datetime.datetime
    """The moment that all this is true of."""

    @property
    def is_finished(self) -> bool:
        """All members have finished, and so has the set."""
        return self.status in FINISHED_SETS

    @property
    def finished(self) -> int:
        """How many members have finished: succeeded, failed or were revoked."""
        return self.successful + self.failed + self.revoked

    @property
    def percent(self) -> int:
        """The finished share of the total, rounded down; 100 only once the set is finished."""
        if self.is_finished:
            return 100
        return min(99, self.finished * 100 // self.total) if self.total else 0

    @property
    def elapsed(self) -> datetime.timedelta:
        """How long the set has been executing, or did execute."""
        if self.started_at is None:
            return datetime.timedelta()
        return max(datetime.timedelta(), (self.finished_at or self.read_at) - self.started_at)

    @property
    def rate(self) -> float:
        """Members finished per second, on average since the first one began; 0.0 if none is."""
        seconds = self.elapsed.total_seconds()
        return self.finished / seconds if seconds else 0.0

    @property
    def eta(self) -> datetime.timedelta | None:
        """How long the rest takes at this rate; None while that would be a guess.

        That is until five seconds or ten members have passed, while the set is open or paused or
        being revoked, and when it is finished.
        """
        if self.is_finished or self.is_open or self.is_paused or self.is_revoking:
            return None
        if not self.rate or (self.elapsed < ETA_AFTER and self.finished < ETA_AFTER_COUNT):
            return None
        return datetime.timedelta(seconds=self.remaining / self.rate)


def progress_of(record: Any) -> Progress:
    """The progress of a set, as its row in the models tells it; read just now."""
    # A word that is none of ours is unfinished business: nobody can say how the set ended.
    known = record.status in TaskSetStatus.values
    status = TaskSetStatus(record.status) if known else TaskSetStatus.RUNNING
    return Progress(
        status=status,
        total=record.total,
        remaining=record.remaining,
        successful=record.successful,
        failed=record.failed,
        revoked=record.revoked,
        started_at=record.started_at,
        finished_at=record.finished_at,
        is_open=record.sealed_at is None and status == TaskSetStatus.RUNNING,
        is_paused=record.paused_at is not None,
        is_revoking=record.revoke_requested_at is not None,
        read_at=timezone.now(),
    )


def progress_of_list(*, total: int, successful: int, failed: int, revoked: int) -> Progress:
    """The progress of subtasks that were counted one by one."""
    remaining = total - successful - failed - revoked
    return Progress(
        status=TaskSetStatus.RUNNING if remaining else set_outcome(failed=failed, revoked=revoked),
        total=total,
        remaining=remaining,
        successful=successful,
        failed=failed,
        revoked=revoked,
        read_at=timezone.now(),
    )


def as_line(progress: Progress, name: str) -> str:
    """The progress as a line of text for a terminal, with a bar."""
    filled = BAR_WIDTH * progress.percent // 100
    bar = "#" * filled + "." * (BAR_WIDTH - filled)
    # A name is what users gave; a terminal obeys what it is told.
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    return (
        f"[{bar}] {progress.percent:3} % of {progress.total}, {progress.failed} failed, "
        f"{progress.revoked} revoked, {progress.status} {shown}"
    ).rstrip()
