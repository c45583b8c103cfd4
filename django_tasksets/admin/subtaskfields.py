"""How a subtask is shown in lists, and the plain fields of its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _

from ..models import SubtaskRecord, TaskSetRecord
from . import words
from .links import Link, Links
from .window import Column, WindowMixin


class SubtaskFieldsMixin(WindowMixin):
    """Columns and fields."""

    list_display: Any = (
        "shown_position", "task_name", "shown_status", "attempts", "queue_name", "shown_enqueued",
        "shown_duration", "shown_reason",
    )  # fmt: skip
    list_display_links: Any = ("shown_position",)
    fieldsets: ClassVar[Any] = (
        (
            _("Times"),
            {
                "classes": ("collapse",),
                "fields": (
                    "shown_enqueued", "shown_run_after", "shown_expires", "shown_claimed",
                    "shown_started", "shown_finished",
                ),
            },
        ),
        (
            _("Details"),
            {
                "classes": ("collapse",),
                "fields": (
                    "id", "queue_name", "priority", "weight", "generation", "attempts", "retries",
                    "crashes", "claims", "worker_id", "revoke_flag",
                ),
            },
        ),
    )  # fmt: skip
    readonly_fields: ClassVar[Any] = (
        "id", "queue_name", "priority", "weight", "generation", "attempts", "retries", "crashes",
        "claims", "worker_id", "revoke_flag", "shown_enqueued", "shown_run_after", "shown_expires",
        "shown_claimed", "shown_started", "shown_finished",
    )  # fmt: skip

    def get_list_display(self, request: HttpRequest) -> list[Column]:
        """The columns; in a list of more than one set's, with the set and the role."""
        columns: list[Column] = list(self.list_display)
        if not request.GET.get("taskset"):
            columns.insert(2, set_column(Links(self.admin_site, request)))
        if not request.GET.get("taskset") or request.GET.get("role"):
            columns.insert(3, "shown_role")
        return columns

    @admin.display(description=_("position"))
    def shown_position(self, record: SubtaskRecord) -> str:
        """The position of a member; of any other the end of its id."""
        if record.position is None or record.position < 0:
            return words.short_id(record.pk)
        return f"#{record.position}"

    @admin.display(description=_("status"))
    def shown_status(self, record: SubtaskRecord) -> SafeString:
        """The status with its icon."""
        return words.subtask_status(record.status).__html__()

    @admin.display(description=_("role"))
    def shown_role(self, record: SubtaskRecord) -> str:
        """What it is to its set."""
        return words.NONE if record.taskset_id is None else words.role(record.role)

    @admin.display(description=_("reason"), empty_value=words.NONE)
    def shown_reason(self, record: SubtaskRecord) -> str:
        """Why it ended as it did, its beginning."""
        return Truncator(record.reason).chars(80)

    @admin.display(description=_("duration"))
    def shown_duration(self, record: SubtaskRecord) -> str:
        """Of the last execution, or of this one so far."""
        start = record.started_at or record.claimed_at
        if record.finished_at is None and record.status != "RUNNING":
            return words.NONE
        return words.took(start, record.finished_at)

    @admin.display(description=_("enqueued"))
    def shown_enqueued(self, record: SubtaskRecord) -> str:
        """When it was applied."""
        return words.moment(record.enqueued_at)

    @admin.display(description=_("run after"))
    def shown_run_after(self, record: SubtaskRecord) -> str:
        """Before that no worker takes it."""
        return words.moment(record.run_after)

    @admin.display(description=_("expires"))
    def shown_expires(self, record: SubtaskRecord) -> str:
        """After that no worker takes it."""
        return words.moment(record.expires_at)

    @admin.display(description=_("claimed"))
    def shown_claimed(self, record: SubtaskRecord) -> str:
        """When a worker last took it."""
        return words.moment(record.claimed_at)

    @admin.display(description=_("started"))
    def shown_started(self, record: SubtaskRecord) -> str:
        """When it last began to execute."""
        return words.moment(record.started_at)

    @admin.display(description=_("finished"))
    def shown_finished(self, record: SubtaskRecord) -> str:
        """When its end was recorded."""
        return words.moment(record.finished_at)


def set_column(links: Links) -> Callable[[SubtaskRecord], Any]:
    """The set that a subtask is in, with a link to its page."""

    @admin.display(description=_("task set"))
    def taskset(record: SubtaskRecord) -> str:
        if record.taskset is None:
            return words.NONE
        text = record.taskset.name or words.short_id(record.taskset_id)
        return Link(text, links.page_of(TaskSetRecord, record.taskset_id)).__html__()

    return taskset
