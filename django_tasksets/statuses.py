"""The states of subtasks and task sets, and Celery's words for them."""

from __future__ import annotations

from typing import Final

from django.db import models
from django.utils.translation import gettext_lazy as _

from .exceptions import UnreadableValue


class SubtaskStatus(models.TextChoices):
    """Where one subtask is in its life: enqueue, claim, execute, record, finish."""

    # Not to be claimed yet: a callback that is not released, a member held back by a pause.
    WAITING = "WAITING", _("Waiting")
    # Any worker may claim it now.
    READY = "READY", _("Ready")
    # Becomes READY once `run_after` has passed: an eta, a countdown, a retry.
    SCHEDULED = "SCHEDULED", _("Scheduled")
    # Claimed by the worker in `worker_id`; only the holder of the newest fence may record it.
    RUNNING = "RUNNING", _("Running")
    # The task returned, and its return value is stored.
    SUCCESSFUL = "SUCCESSFUL", _("Successful")
    # The task raised and has no retries left, or could not be executed at all; see `reason`.
    FAILED = "FAILED", _("Failed")
    # Called off before its end: by a user, a policy, an expiry, or because it is not needed.
    REVOKED = "REVOKED", _("Revoked")


class TaskSetStatus(models.TextChoices):
    """Where a task set is in its life. Open, paused and revoking are shown from other columns."""

    # Its ids are written down, nothing is applied yet. Never counted and never swept.
    SAVED = "SAVED", _("Saved")
    # Some member is unfinished, or the set is still open.
    RUNNING = "RUNNING", _("Running")
    # Every member succeeded.
    SUCCESSFUL = "SUCCESSFUL", _("Successful")
    # All members finished, and at least one failed.
    FAILED = "FAILED", _("Failed")
    # All members finished, none failed, and at least one was revoked.
    REVOKED = "REVOKED", _("Revoked")


class Role(models.TextChoices):
    """What a subtask is to its set."""

    # Counted by the set, or a subtask of its own that belongs to no set.
    MEMBER = "MEMBER", _("Member")
    # Released when the set finished and every member succeeded.
    ON_SUCCESS = "ON_SUCCESS", _("On success")
    # Released when the set finished and not every member succeeded.
    ON_FAILURE = "ON_FAILURE", _("On failure")
    # Released when the set finished and the callback above, if there is one, has finished too.
    ON_FINISH = "ON_FINISH", _("On finish")


class RevokeFlag(models.IntegerChoices):
    """What has been asked of a RUNNING subtask."""

    # Nothing.
    NONE = 0, _("No")
    # Stop when it suits: async code is cancelled, sync code sees `request.revoked`.
    REVOKE = 1, _("Revoke")
    # Stop now: the worker process that executes it is replaced.
    TERMINATE = 2, _("Terminate")


FINISHED: Final = frozenset({SubtaskStatus.SUCCESSFUL, SubtaskStatus.FAILED, SubtaskStatus.REVOKED})
UNFINISHED: Final = frozenset(SubtaskStatus) - FINISHED
FINISHED_SETS: Final = frozenset(
    {TaskSetStatus.SUCCESSFUL, TaskSetStatus.FAILED, TaskSetStatus.REVOKED}
)

CELERY_STATES: Final[dict[str, str]] = {
    SubtaskStatus.WAITING: "PENDING",
    SubtaskStatus.READY: "PENDING",
    SubtaskStatus.SCHEDULED: "PENDING",
    SubtaskStatus.RUNNING: "STARTED",
    SubtaskStatus.SUCCESSFUL: "SUCCESS",
    SubtaskStatus.FAILED: "FAILURE",
    SubtaskStatus.REVOKED: "REVOKED",
}
"""Celery's state for each status; a SCHEDULED subtask that has been retried reads RETRY."""


def subtask_status(stored: str) -> SubtaskStatus:
    """The status that a row's column says; raises UnreadableValue for a word that is none."""
    if stored not in SubtaskStatus.values:
        raise UnreadableValue(f"No status is called {stored!r}: somebody else has written the row")
    return SubtaskStatus(stored)


def set_outcome(*, failed: int, revoked: int) -> TaskSetStatus:
    """The final status of a set with these counts and no unfinished member."""
    if failed:
        return TaskSetStatus.FAILED
    if revoked:
        return TaskSetStatus.REVOKED
    return TaskSetStatus.SUCCESSFUL


def callback_position(role: Role, generation: int) -> int:
    """The position of a callback row.

    Members have dense positions from 0. Callbacks have negative ones, a different one for each
    generation and kind, so that the unique index over (set, position) also keeps a set from
    having two callbacks of one kind in one generation, on databases without partial indexes too.
    """
    kinds = (Role.ON_SUCCESS, Role.ON_FAILURE, Role.ON_FINISH)
    return -(len(kinds) * generation + kinds.index(role))
