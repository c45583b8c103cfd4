"""The admin of workers: who is alive, and what each of them holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..conf import current
from ..models import SubtaskRecord, WorkerRecord
from ..statuses import SubtaskStatus
from . import words
from .links import Link, Links
from .window import Column, WindowMixin


class WorkerAdminMixin(WindowMixin):
    """Workers: newest first."""

    list_display: Any = (
        "__str__", "shown_status", "shown_heartbeat", "shown_queues", "shown_started", "version",
    )  # fmt: skip
    list_per_page = 100
    sortable_by: ClassVar[Any] = ()
    ordering: ClassVar[Any] = ("-started_at",)
    actions: Any = None
    fields: ClassVar[Any] = (
        "id", "shown_status", "host", "pid", "shown_queues", "version", "shown_started",
        "shown_heartbeat", "shown_lost", "shown_held", "late_results",
    )  # fmt: skip
    readonly_fields: ClassVar[Any] = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """With the database's time, in which heartbeats are, and the number of subtasks held."""
        held = SubtaskRecord.objects.using(current().DATABASE).order_by()
        held = held.filter(status=SubtaskStatus.RUNNING, worker_id=OuterRef("pk"))
        counts = held.values("worker_id").annotate(count=Count("pk")).values("count")
        held_now = Coalesce(Subquery(counts, output_field=IntegerField()), 0)
        rows = super().get_queryset(request)
        workers: QuerySet[Any] = rows.annotate(read_at=Now(), held=held_now)
        return workers

    def get_list_display(self, request: HttpRequest) -> list[Column]:
        """The columns, with one whose links are for this user."""
        return [*self.list_display, held_column(Links(self.admin_site, request))]

    @admin.display(description=gettext_lazy("status"))
    def shown_status(self, worker: WorkerRecord) -> SafeString:
        """Alive, late or lost."""
        return words.worker_status(worker, worker.read_at).__html__()  # type: ignore[attr-defined]

    @admin.display(description=gettext_lazy("last heartbeat"))
    def shown_heartbeat(self, worker: WorkerRecord) -> str:
        """How long ago."""
        silence = worker.read_at - worker.heartbeat_at  # type: ignore[attr-defined]
        return _("%(span)s ago") % {"span": words.span(silence)}

    @admin.display(description=gettext_lazy("queues"))
    def shown_queues(self, worker: WorkerRecord) -> str:
        """Those that it takes from."""
        return ", ".join(worker.queues.split(",")) if worker.queues else _("all")

    @admin.display(description=gettext_lazy("started"))
    def shown_started(self, worker: WorkerRecord) -> str:
        """When the process began."""
        return words.moment(worker.started_at)

    @admin.display(description=gettext_lazy("declared lost"))
    def shown_lost(self, worker: WorkerRecord) -> str:
        """When it was declared dead."""
        return words.moment(worker.lost_at)

    @admin.display(description=gettext_lazy("holds"))
    def shown_held(self, worker: WorkerRecord) -> str:
        """How many subtasks it has claimed and not recorded."""
        return words.number(worker.held)  # type: ignore[attr-defined]


def held_column(links: Links) -> Callable[[WorkerRecord], Any]:
    """How many subtasks a worker holds, with a link to them."""

    @admin.display(description=gettext_lazy("holds"))
    def held(worker: WorkerRecord) -> SafeString:
        count: int = worker.held  # type: ignore[attr-defined]
        url = links.list_of(SubtaskRecord, worker=worker.pk) if count else ""
        return Link(words.number(count), url).__html__()

    return held
