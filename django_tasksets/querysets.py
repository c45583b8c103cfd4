"""Adjectives: which rows. The verbs are in the store and the flow."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Self

from django.db import models

from .statuses import FINISHED, FINISHED_SETS, UNFINISHED, Role, SubtaskStatus, TaskSetStatus

if TYPE_CHECKING:
    from .models import SubtaskRecord, TaskSetRecord, WorkerRecord  # noqa: F401  named below


class TaskSetQuerySet(models.QuerySet["TaskSetRecord"]):
    """Task sets."""

    def running(self) -> Self:
        """Applied and not finished."""
        return self.filter(status=TaskSetStatus.RUNNING)

    def finished(self) -> Self:
        """With every member finished."""
        return self.filter(status__in=FINISHED_SETS)


class SubtaskQuerySet(models.QuerySet["SubtaskRecord"]):
    """Subtasks."""

    def members(self) -> Self:
        """Those that their set counts."""
        return self.filter(role=Role.MEMBER, taskset__isnull=False)

    def callbacks(self) -> Self:
        """Those that their set releases when it finishes."""
        return self.exclude(role=Role.MEMBER)

    def ready(self) -> Self:
        """Those that a worker may claim now."""
        return self.filter(status=SubtaskStatus.READY)

    def unfinished(self) -> Self:
        """Those whose status is not final."""
        return self.filter(status__in=UNFINISHED)

    def pending(self) -> Self:
        """Those that are unfinished, and that no worker holds."""
        return self.filter(status__in=UNFINISHED - {SubtaskStatus.RUNNING})

    def finished(self) -> Self:
        """Those whose status is final."""
        return self.filter(status__in=FINISHED)


class WorkerQuerySet(models.QuerySet["WorkerRecord"]):
    """Worker processes."""

    def alive(self, *, since: datetime.datetime) -> Self:
        """Those that gave a heartbeat after `since` and were not declared lost."""
        return self.filter(lost_at=None, heartbeat_at__gte=since)
