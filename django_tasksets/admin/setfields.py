"""How a task set is shown in lists, and the plain fields of its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ..models import SubtaskRecord, TaskSetRecord
from . import words
from .links import Link, Links
from .live import LiveSet
from .window import Column, WindowMixin


class SetFieldsMixin(WindowMixin):
    """Columns and fields."""

    list_display: Any = (
        "shown_name", "shown_status", "shown_progress", "shown_owner", "shown_enqueued",
        "shown_duration",
    )  # fmt: skip
    fieldsets: ClassVar[Any] = (
        (
            _("Times"),
            {
                "classes": ("collapse",),
                "fields": (
                    "shown_enqueued", "shown_started", "shown_finished", "shown_sealed",
                    "shown_paused", "shown_revoke_requested",
                ),
            },
        ),
        (
            _("Details"),
            {
                "classes": ("collapse",),
                "fields": ("id", "shown_generation", "shown_limit", "revoke_reason"),
            },
        ),
    )  # fmt: skip
    readonly_fields: ClassVar[Any] = (
        "id", "revoke_reason", "shown_enqueued", "shown_started", "shown_finished",
        "shown_sealed", "shown_paused", "shown_revoke_requested", "shown_generation", "shown_limit",
    )  # fmt: skip

    def get_list_display(self, request: HttpRequest) -> list[Column]:
        """The columns, with one whose links are for this user."""
        columns: list[Column] = list(self.list_display)
        columns.insert(3, failed_column(Links(self.admin_site, request)))
        return columns

    @admin.display(description=_("name"), ordering="name")
    def shown_name(self, record: TaskSetRecord) -> SafeString:
        """The name, or in place of one the end of the id; the id is there in either case."""
        return format_html(
            '<span title="{}">{}</span>', record.pk, record.name or words.short_id(record.pk)
        )

    @admin.display(description=_("status"), ordering="status")
    def shown_status(self, record: TaskSetRecord) -> SafeString:
        """The shown word, kept up to date."""
        return _rendered("status_cell.html", record)

    @admin.display(description=_("progress"))
    def shown_progress(self, record: TaskSetRecord) -> SafeString:
        """The bar with its counts, kept up to date."""
        return _rendered("progress_cell.html", record)

    @admin.display(description=_("owner"), empty_value=words.NONE)
    def shown_owner(self, record: TaskSetRecord) -> str | None:
        """The user's name; the key of one who is gone."""
        if record.owner_id is None:
            return None
        return str(record.owner or record.owner_id)

    @admin.display(description=_("enqueued"), ordering="enqueued_at")
    def shown_enqueued(self, record: TaskSetRecord) -> str:
        """When it was applied."""
        return words.moment(record.enqueued_at)

    @admin.display(description=_("duration"))
    def shown_duration(self, record: TaskSetRecord) -> SafeString:
        """From the enqueueing to the end, or until now."""
        return format_html(
            '<span data-tasksets-set="{}"><span data-tasksets-field="duration">{}</span></span>',
            record.pk,
            LiveSet(record).fields["duration"],
        )

    @admin.display(description=_("started"))
    def shown_started(self, record: TaskSetRecord) -> str:
        """When the first member began to execute."""
        return words.moment(record.started_at)

    @admin.display(description=_("finished"))
    def shown_finished(self, record: TaskSetRecord) -> str:
        """When the last member had finished."""
        return words.moment(record.finished_at)

    @admin.display(description=_("sealed"))
    def shown_sealed(self, record: TaskSetRecord) -> str:
        """From when on nothing could be added."""
        return words.moment(record.sealed_at)

    @admin.display(description=_("paused"))
    def shown_paused(self, record: TaskSetRecord) -> str:
        """Since when it has been paused."""
        return words.moment(record.paused_at)

    @admin.display(description=_("revoke requested"))
    def shown_revoke_requested(self, record: TaskSetRecord) -> str:
        """When it was marked for revoking."""
        return words.moment(record.revoke_requested_at)

    @admin.display(description=_("generation"))
    def shown_generation(self, record: TaskSetRecord) -> str:
        """How often it has been run; more than 1 after retries of a finished set."""
        return words.number(record.generation)

    @admin.display(description=_("failures allowed"))
    def shown_limit(self, record: TaskSetRecord) -> str:
        """How many members may fail before the rest is revoked."""
        if record.max_failures_percent is not None:
            return words.percent(record.max_failures_percent)
        if record.max_failures is not None:
            return words.number(record.max_failures)
        return str(_("any number"))


def failed_column(links: Links) -> Callable[[TaskSetRecord], SafeString]:
    """How many members failed, with a link to them."""

    @admin.display(description=_("failed"), ordering="failed")
    def failed(record: TaskSetRecord) -> SafeString:
        url = links.list_of(SubtaskRecord, taskset=record.pk, status="failed")
        return format_html(
            '<span data-tasksets-set="{}"><span data-tasksets-field="failed">{}</span></span>',
            record.pk,
            Link(words.number(record.failed), url),
        )

    return failed


def _rendered(template: str, record: TaskSetRecord) -> SafeString:
    return render_to_string(f"admin/tasksets/{template}", {"live": LiveSet(record)})
