"""The rows. What changes them is in `store` (statements) and in the flow modules (decisions)."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.contenttypes.fields import GenericForeignKey
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from . import codec
from .exceptions import UnreadableValue
from .ids import new_id
from .indexes import PartialIndex
from .querysets import SubtaskQuerySet, TaskSetQuerySet, WorkerQuerySet
from .statuses import FINISHED, FINISHED_SETS, RevokeFlag, Role, SubtaskStatus, TaskSetStatus


class TaskSetRecord(models.Model):
    """A task set: subtasks that are applied together, counted together, and end together.

    The counts are of members only, and are written in the transaction that changes the members.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    name = models.CharField(_("name"), max_length=200, blank=True)
    status = models.CharField(
        _("status"), max_length=10, choices=TaskSetStatus.choices, default=TaskSetStatus.RUNNING
    )
    generation = models.PositiveSmallIntegerField(_("generation"), default=1)

    total = models.IntegerField(_("total"), default=0)
    remaining = models.IntegerField(_("remaining"), default=0)
    successful = models.IntegerField(_("successful"), default=0)
    failed = models.IntegerField(_("failed"), default=0)
    revoked = models.IntegerField(_("revoked"), default=0)

    max_failures = models.IntegerField(_("max failures"), null=True, blank=True)
    max_failures_percent = models.FloatField(_("max failures, percent"), null=True, blank=True)
    # Failures from before a retry, which do not count against these limits any more.
    forgiven = models.IntegerField(_("forgiven failures"), db_default=0)
    has_callbacks = models.BooleanField(_("has callbacks"), default=False)

    enqueued_at = models.DateTimeField(_("enqueued at"), default=timezone.now)
    # When the first member that was recorded had begun to execute.
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    # NULL while subtasks may be added: the set is open and cannot finish.
    sealed_at = models.DateTimeField(_("sealed at"), null=True, blank=True)
    paused_at = models.DateTimeField(_("paused at"), null=True, blank=True)
    revoke_requested_at = models.DateTimeField(_("revoke requested at"), null=True, blank=True)
    revoke_reason = models.CharField(_("revoke reason"), max_length=200, blank=True)
    # Set before the first of its rows is deleted: nothing can be done with it any more.
    discarded_at = models.DateTimeField(_("discarded at"), null=True, blank=True)
    # When taskset_finished had been sent; NULL on a finished set means: send it again.
    announced_at = models.DateTimeField(_("announced at"), null=True, blank=True)

    metadata = models.TextField(_("metadata"), default="null")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        verbose_name=_("owner"),
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
    )
    related_type = models.ForeignKey(
        "contenttypes.ContentType",
        models.SET_NULL,
        verbose_name=_("related type"),
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    related_id = models.CharField(_("related id"), max_length=255, null=True, blank=True)
    related = GenericForeignKey("related_type", "related_id")
    origin = models.ForeignKey(
        "self",
        models.SET_NULL,
        verbose_name=_("rerun of"),
        null=True,
        blank=True,
        related_name="reruns",
        db_constraint=False,
    )
    # The subtask ids of a set that was saved before it is applied, as a JSON list.
    saved_ids = models.TextField(_("saved ids"), null=True, blank=True)

    objects: ClassVar[TaskSetQuerySet] = TaskSetQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        verbose_name = _("task set")
        verbose_name_plural = _("task sets")
        ordering = ("-enqueued_at",)
        # One for each thing that can be done to a set, so that watching is not steering.
        permissions = (
            ("revoke_tasksetrecord", _("Can revoke task sets")),
            ("pause_tasksetrecord", _("Can pause and resume task sets")),
            ("retry_tasksetrecord", _("Can retry failed subtasks of task sets")),
            ("rerun_tasksetrecord", _("Can run task sets again")),
        )
        indexes = (
            models.Index(fields=["enqueued_at"], name="tasksets_set_enqueued"),
            models.Index(fields=["finished_at"], name="tasksets_set_finished"),
            models.Index(fields=["related_type", "related_id"], name="tasksets_set_related"),
            PartialIndex(
                fields=["id"],
                where=Q(status="RUNNING"),
                otherwise=["status", "id"],
                name="tasksets_set_running",
            ),
            PartialIndex(
                fields=["finished_at"],
                where=Q(announced_at=None, finished_at__isnull=False),
                otherwise=["announced_at", "finished_at"],
                name="tasksets_set_unannounced",
            ),
        )
        constraints = (
            models.CheckConstraint(
                condition=Q(remaining__gte=0, successful__gte=0, failed__gte=0, revoked__gte=0)
                & Q(total=F("remaining") + F("successful") + F("failed") + F("revoked")),
                name="tasksets_set_counts_add_up",
            ),
        )

    def __str__(self) -> str:
        return self.name or str(self.id)

    @property
    def is_finished(self) -> bool:
        """Every member has finished, and so has the set; its callbacks may not have."""
        return self.status in FINISHED_SETS

    @property
    def is_open(self) -> bool:
        """Subtasks may still be added, so the set cannot finish."""
        return self.status == TaskSetStatus.RUNNING and self.sealed_at is None

    def get_metadata(self) -> Any:
        """The metadata as it was given."""
        return codec.decode(self.metadata)


class SubtaskRecord(models.Model):
    """A subtask, one row from enqueue to the end: a member, a callback, or one of its own.

    Values are text in the tagged JSON of `codec`, so that they come back the same from every
    database; the native JSON types reorder keys, turn 1e22 into an integer and limit the depth.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    # The unique index over (taskset, position) serves this key: no status change touches it.
    taskset = models.ForeignKey(
        TaskSetRecord,
        models.CASCADE,
        verbose_name=_("task set"),
        null=True,
        blank=True,
        related_name="subtasks",
        db_index=False,
    )
    role = models.CharField(_("role"), max_length=10, choices=Role.choices, default=Role.MEMBER)
    # Dense from 0 for members, negative for callbacks (statuses.callback_position).
    position = models.IntegerField(_("position"), null=True, blank=True)
    generation = models.PositiveSmallIntegerField(_("generation"), default=1)
    weight = models.PositiveSmallIntegerField(_("weight"), default=1)

    task_name = models.CharField(_("task"), max_length=255)
    args = models.TextField(_("arguments"), default="[]")
    kwargs = models.TextField(_("keyword arguments"), default="{}")
    # Options of the call that have no column of their own, as a JSON object; empty for none.
    options = models.TextField(_("options"), default="", blank=True)
    # {"link": [...], "link_error": [...]} in the codec's JSON; empty for none.
    links = models.TextField(_("links"), default="", blank=True)

    queue_name = models.CharField(_("queue"), max_length=64, default="default")
    priority = models.SmallIntegerField(_("priority"), default=0)
    # Microseconds since the epoch: the time of enqueueing, and a second later for each position
    # in the set, so that a long set leaves room for the short ones that come after it.
    claim_order = models.BigIntegerField(_("claim order"), default=0)
    run_after = models.DateTimeField(_("run after"), null=True, blank=True)
    # NULL again once it is over.
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)

    status = models.CharField(
        _("status"), max_length=10, choices=SubtaskStatus.choices, default=SubtaskStatus.READY
    )
    # The columns with a database default are left out of inserts.
    reason = models.CharField(_("reason"), max_length=200, db_default="", blank=True)
    revoke_flag = models.SmallIntegerField(
        _("revoke requested"), choices=RevokeFlag.choices, db_default=0
    )

    # The fence is (worker_id, claims): claims is +1 at every claim and written nowhere else.
    worker_id = models.UUIDField(_("worker"), null=True, blank=True)
    claims = models.IntegerField(_("claims"), db_default=0)
    # These are policy only: executions that were recorded, retries, deaths of its process, and
    # how often in a row it was given back because it could not be called.
    attempts = models.IntegerField(_("attempts"), db_default=0)
    retries = models.IntegerField(_("retries"), db_default=0)
    crashes = models.SmallIntegerField(_("crashes"), db_default=0)
    deferrals = models.SmallIntegerField(_("deferrals"), db_default=0)

    enqueued_at = models.DateTimeField(_("enqueued at"), default=timezone.now)
    claimed_at = models.DateTimeField(_("claimed at"), null=True, blank=True)
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)

    return_value = models.TextField(_("return value"), null=True, blank=True)
    # One JSON object a line, oldest first, for each execution that did not succeed: lines, so
    # that one more is appended by any database without reading the others. Once there is much of
    # it, it begins anew with the latest.
    errors = models.TextField(_("errors"), db_default="", blank=True)
    # Equal for errors of one exception class raised at one place; see ErrorGroupRecord.
    error_fingerprint = models.CharField(
        _("error fingerprint"), max_length=32, db_default="", blank=True
    )

    objects: ClassVar[SubtaskQuerySet] = SubtaskQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        verbose_name = _("subtask")
        verbose_name_plural = _("subtasks")
        ordering = ("taskset", "position")
        permissions = (
            ("revoke_subtaskrecord", _("Can revoke subtasks")),
            ("retry_subtaskrecord", _("Can retry subtasks")),
            # Arguments, results and tracebacks may hold what not everyone should read.
            ("view_subtask_values", _("Can view arguments, results and tracebacks")),
        )
        indexes = (
            PartialIndex(
                fields=["queue_name", "-priority", "claim_order"],
                where=Q(status="READY"),
                otherwise=["status", "queue_name", "-priority", "claim_order"],
                name="tasksets_sub_ready",
            ),
            PartialIndex(
                fields=["run_after"],
                where=Q(status="SCHEDULED"),
                otherwise=["status", "run_after"],
                name="tasksets_sub_scheduled",
            ),
            PartialIndex(
                fields=["worker_id"],
                where=Q(status="RUNNING"),
                otherwise=["status", "worker_id"],
                name="tasksets_sub_running",
            ),
            PartialIndex(
                fields=["taskset", "position"],
                where=Q(status="FAILED"),
                otherwise=["status", "taskset", "position"],
                name="tasksets_sub_failed",
            ),
            PartialIndex(
                fields=["expires_at"],
                where=Q(expires_at__isnull=False),
                otherwise=["expires_at"],
                name="tasksets_sub_expiring",
            ),
            # Subtasks that belong to no set are pruned one by one.
            PartialIndex(
                fields=["finished_at"],
                where=Q(taskset=None),
                otherwise=["finished_at"],
                name="tasksets_sub_alone_finished",
            ),
        )
        constraints = (
            models.UniqueConstraint(
                fields=("taskset", "position"), name="tasksets_sub_one_per_position"
            ),
        )

    def __str__(self) -> str:
        return f"{self.task_name}[{self.id}]"

    @property
    def is_finished(self) -> bool:
        """The status is final: SUCCESSFUL, FAILED or REVOKED."""
        return self.status in FINISHED

    def get_args(self) -> list[Any]:
        """The positional arguments, decoded."""
        return list(codec.decode(self.args))

    def get_kwargs(self) -> dict[str, Any]:
        """The keyword arguments, decoded."""
        return dict(codec.decode(self.kwargs))

    def get_return_value(self) -> Any:
        """What the task returned, decoded; None while it has not."""
        return None if self.return_value is None else codec.decode(self.return_value)

    def get_errors(self) -> list[dict[str, Any]]:
        """The failed executions, oldest first: calls.Failure, with worker_id, attempt and at.

        A line that was not written by a worker is the message of one.
        """
        return [_read_error(line) for line in self.errors.splitlines()]

    @property
    def worker_ids(self) -> list[uuid.UUID]:
        """The workers that executed it, one for each attempt, oldest first."""
        given = [_read_id(error.get("worker_id")) for error in self.get_errors()]
        earlier = [key for key in given if key is not None]
        if self.status == SubtaskStatus.SUCCESSFUL and self.worker_id is not None:
            earlier.append(self.worker_id)
        return earlier


def _read_error(line: str) -> dict[str, Any]:
    try:
        error = codec.decode(line)
    except UnreadableValue:
        error = None
    return error if isinstance(error, dict) else {"message": line}


def _read_id(value: object) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(value))
    except ValueError:
        return None


class WorkerRecord(models.Model):
    """One process of `runtaskworker` that executes subtasks, from its start to its end."""

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    host = models.CharField(_("host"), max_length=255)
    pid = models.IntegerField(_("process id"))
    queues = models.CharField(_("queues"), max_length=1000, default="", blank=True)
    version = models.CharField(_("version"), max_length=50, default="", blank=True)
    started_at = models.DateTimeField(_("started at"), default=timezone.now)
    heartbeat_at = models.DateTimeField(_("last heartbeat"), default=timezone.now)
    # Once this is set the worker is dead to everyone: its results are late, its rows are rescued.
    lost_at = models.DateTimeField(_("lost at"), null=True, blank=True)
    # Many of them mean that the lease is too short for what this machine goes through.
    late_results = models.PositiveIntegerField(_("late results"), default=0)

    objects: ClassVar[WorkerQuerySet] = WorkerQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        ordering = ("-started_at",)

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class ErrorGroupRecord(models.Model):
    """How often members of one set failed for one reason: counted as they are recorded."""

    id = models.BigAutoField(primary_key=True)
    taskset = models.ForeignKey(
        TaskSetRecord, models.CASCADE, verbose_name=_("task set"), related_name="error_groups"
    )
    fingerprint = models.CharField(_("fingerprint"), max_length=32)
    exception_class = models.CharField(_("exception class"), max_length=255)
    message = models.CharField(_("latest message"), max_length=500, blank=True)
    count = models.IntegerField(_("count"), default=0)
    first_seen_at = models.DateTimeField(_("first seen at"))
    last_seen_at = models.DateTimeField(_("last seen at"))
    latest_subtask_id = models.UUIDField(_("latest subtask"))

    class Meta:
        verbose_name = _("error group")
        verbose_name_plural = _("error groups")
        ordering = ("-count",)
        constraints = (
            models.UniqueConstraint(
                fields=("taskset", "fingerprint"), name="tasksets_error_one_per_fingerprint"
            ),
        )

    def __str__(self) -> str:
        return f"{self.exception_class} ×{self.count}"


class ProgressSample(models.Model):
    """A running set's counts at one moment, for the set's timeline. Nothing takes samples yet."""

    id = models.BigAutoField(primary_key=True)
    taskset = models.ForeignKey(
        TaskSetRecord, models.CASCADE, verbose_name=_("task set"), related_name="samples"
    )
    sampled_at = models.DateTimeField(_("sampled at"))
    successful = models.IntegerField(_("successful"))
    failed = models.IntegerField(_("failed"))
    revoked = models.IntegerField(_("revoked"))

    class Meta:
        verbose_name = _("progress sample")
        verbose_name_plural = _("progress samples")
        ordering = ("taskset", "sampled_at")

    def __str__(self) -> str:
        return f"{self.taskset_id} at {self.sampled_at:%H:%M:%S}"
