"""The admin of task sets: the list, the deeds, and what the bars ask for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from django.contrib import messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db import router
from django.db.models import Model, Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from ..conf import current
from ..exceptions import InvalidId, TaskSetsError
from ..ids import parse_id
from ..models import SubtaskRecord, TaskSetRecord
from . import live
from .buttons import ButtonsMixin, Told, as_action
from .filters import SetStatusFilter
from .links import Links, address
from .operations import Given
from .setfields import SetFieldsMixin
from .setoperations import SET_OPERATIONS, Came, SetOperation, told_of_sets
from .setpage import SetPage

PER_PAGE = 50


class TaskSetAdminMixin(SetFieldsMixin, ButtonsMixin):
    """Task sets: newest first, with bars that move."""

    operations: ClassVar[dict[str, SetOperation]] = SET_OPERATIONS
    list_filter: ClassVar[Any] = (SetStatusFilter, "enqueued_at")
    list_per_page = PER_PAGE
    ordering: ClassVar[Any] = ("-enqueued_at",)
    search_fields: ClassVar[Any] = ("name",)
    search_help_text = _("An id, or how a name begins.")
    actions: Any = tuple(as_action(operation) for operation in SET_OPERATIONS.values())
    parameters = frozenset({"status", "enqueued_at__gte", "enqueued_at__lt"})

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Without the columns that may be long; owners come from where users are."""
        users = get_user_model()
        owners = users._default_manager.using(router.db_for_read(users))
        sets = super().get_queryset(request).defer("metadata", "saved_ids")
        return sets.prefetch_related(Prefetch("owner", queryset=owners))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """An id as a whole, or the beginning of a name."""
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            return queryset.filter(pk=parse_id(term)), False
        except InvalidId:
            return queryset.filter(name__istartswith=term), False

    # Permissions, by the names that operations and actions ask for

    def has_pause_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """May pause and resume."""
        return self.may(request, "pause")

    def has_rerun_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """May run again."""
        return self.may(request, "rerun")

    def has_purge_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """May delete, by our own page."""
        return self.may(request, "delete")

    # Pages

    def get_urls(self) -> list[URLPattern]:
        """One more: what the bars ask for. It answers signed-out users itself, by a status."""
        return [
            path("progress.json", self.progress_view, name="tasksets_progress"),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The list."""
        extra = {"progress_url": self.progress_url(), **(extra_context or {})}
        return super().changelist_view(request, extra)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """The page of one set."""
        record = context["original"]
        page = SetPage(record, Links(self.admin_site, request))
        context |= {
            "page": page,
            "is_live": page.is_live,
            "shows_callbacks": bool(page.callbacks),
            "progress_url": self.progress_url(),
            "buttons": self.buttons(request, record),
            "retry_url": self.retry_url(request, record),
            **self.get_taskset_extra_context(request, record),
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def get_taskset_extra_context(
        self, request: HttpRequest, record: TaskSetRecord
    ) -> dict[str, Any]:
        """What your own `admin/tasksets/taskset_extra.html`, which the page includes, needs."""
        return {}

    def retry_url(self, request: HttpRequest, record: TaskSetRecord) -> str:
        """Where one kind of error is retried, for those who may."""
        return self._address("retry", record.pk) if self.has_retry_permission(request) else ""

    def progress_url(self) -> str:
        """Where the bars ask."""
        return address(self.admin_site, "tasksets_progress")

    def progress_view(self, request: HttpRequest) -> HttpResponse:
        """How the sets with the ids in `id` stand, and with `callbacks` theirs too."""
        if not self.admin_site.has_permission(request) or not self.has_view_permission(request):
            raise PermissionDenied
        return _progress(request)

    # Deeds

    def perform(
        self,
        request: HttpRequest,
        operation: SetOperation,
        chunks: Iterable[Sequence[TaskSetRecord]],
        given: Given,
    ) -> Told:
        """Set by set, each with a line in its history."""
        came: list[Came] = []
        refused: list[str] = []
        for record in (record for chunk in chunks for record in chunk):
            try:
                one = operation.run(record, given)
            except TaskSetsError as error:
                refused.append(str(error))
                one = Came(done=False)
            came.append(one)
            self._log(request, operation, record, one)
        text = told_of_sets(operation, came)
        if refused:
            done = any(one.done for one in came)
            text = f"{text} {refused[0]}." if done else f"{refused[0]}."
        if refused or not any(one.done for one in came):
            return Told(text, messages.ERROR if refused else messages.WARNING)
        return Told(text, page=came[0].new_set if len(came) == 1 else None)

    def _log(
        self, request: HttpRequest, operation: SetOperation, record: TaskSetRecord, came: Came
    ) -> None:
        if operation is SET_OPERATIONS["delete"] and came.done:
            gone: Any = [record]
            self.log_deletions(request, gone)
            return
        text = told_of_sets(operation, [came])
        if came.new_set is not None:
            text = f"{text} {came.new_set}"
        self.log_change(request, record, f"{operation.name}: {text}")


@require_safe
def _progress(request: HttpRequest) -> HttpResponse:
    keys = []
    for value in request.GET.getlist("id")[:PER_PAGE]:
        try:
            keys.append(parse_id(value))
        except InvalidId:
            continue
    alias = current().DATABASE
    subtasks = SubtaskRecord.objects.using(alias)
    callbacks = subtasks.filter(taskset_id__in=keys, position__lt=0)
    return live.answer(
        request,
        TaskSetRecord.objects.using(alias).filter(pk__in=keys),
        callbacks if "callbacks" in request.GET else callbacks.none(),
    )
