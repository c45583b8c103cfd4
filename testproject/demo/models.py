"""What the demo keeps of a census."""

from __future__ import annotations

import datetime
from typing import ClassVar

from django.db import models
from django.urls import reverse
from django.utils import timezone

from django_tasksets import TaskSetResult


class Census(models.Model):
    """One survey of one source tree, from the button to the report."""

    class Status(models.TextChoices):
        """Where a census is; how far its files are is the task set's to say."""

        # Its files are being surveyed, or its callback is at work.
        COUNTING = "COUNTING", "Counting"
        # `publish_report` has stored the report.
        PUBLISHED = "PUBLISHED", "Published"
        # Some file could not be surveyed, so there is no report.
        FAILED = "FAILED", "Failed"

    path = models.CharField("directory", max_length=1000)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.COUNTING)
    taskset_id = models.CharField("task set", max_length=36, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)
    report = models.JSONField(null=True, blank=True)

    objects: ClassVar[models.Manager[Census]] = models.Manager()

    class Meta:
        verbose_name_plural = "censuses"
        ordering = ("-pk",)

    def __str__(self) -> str:
        return f"Census of {self.path}"

    def get_absolute_url(self) -> str:
        """The page of this census."""
        return reverse("demo:census", args=(self.pk,))

    @property
    def taskset(self) -> TaskSetResult:
        """The handle of the task set that surveys the files."""
        return TaskSetResult(self.taskset_id)

    @property
    def took(self) -> datetime.timedelta:
        """How long it took, from the button to the report; or how long it has been going on."""
        return (self.finished_at or timezone.now()) - self.created_at
