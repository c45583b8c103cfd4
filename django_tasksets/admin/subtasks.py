"""The admin of subtasks: the list, usually that of one set, and the deeds."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from ..conf import current
from ..exceptions import InvalidId, TaskSetsError
from ..ids import parse_id
from ..models import ErrorGroupRecord, SubtaskRecord, TaskSetRecord
from .buttons import ButtonsMixin, Told, as_action
from .filters import (
    UNFINISHED_KEY,
    ErrorFilter,
    RoleFilter,
    SetFilter,
    SubtaskStatusFilter,
    WorkerFilter,
    chosen_set,
)
from .links import Links
from .operations import Given
from .paginators import CappedPaginator, CountedPaginator, OrdinalPaginator
from .setpage import SetPage
from .subtaskfields import SubtaskFieldsMixin
from .subtaskoperations import SUBTASK_OPERATIONS, SubtaskOperation, told_of_subtasks
from .subtaskpage import SubtaskPage

FILTERS = frozenset({"taskset", "status", "role", "error", "worker"})
# What a set counts of its members, by the status that is filtered by.
COUNTED = {
    UNFINISHED_KEY: "remaining",
    "successful": "successful",
    "failed": "failed",
    "revoked": "revoked",
}


class SubtaskAdminMixin(SubtaskFieldsMixin, ButtonsMixin):
    """Subtasks: those of a set by position, with exact counts; all of them newest first."""

    operations: ClassVar[dict[str, SubtaskOperation]] = SUBTASK_OPERATIONS
    list_filter: ClassVar[Any] = (
        SubtaskStatusFilter,
        RoleFilter,
        SetFilter,
        ErrorFilter,
        WorkerFilter,
    )
    list_per_page = 100
    search_fields: ClassVar[Any] = ("id",)
    search_help_text = _("An id; within a task set also a position.")
    sortable_by: ClassVar[Any] = ()
    actions: Any = tuple(as_action(operation) for operation in SUBTASK_OPERATIONS.values())
    parameters = FILTERS

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """By the index at hand; ids are made in the order of time."""
        return ("position",) if request.GET.get("taskset") else ("-id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Without the columns that may be long."""
        rows = super().get_queryset(request)
        rows = rows.defer("args", "kwargs", "options", "links", "return_value", "errors")
        if request.GET.get("taskset"):
            return rows
        names = ("taskset__metadata", "taskset__saved_ids")
        return rows.select_related("taskset").defer(*names)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """By what has an index; never in the values."""
        term = search_term.strip().removeprefix("#")
        if not term:
            return queryset, False
        try:
            return queryset.filter(pk=parse_id(term)), False
        except InvalidId:
            pass
        if term.isdecimal() and len(term) < 10 and request.GET.get("taskset"):
            return queryset.filter(position=int(term)), False
        return queryset.none(), False

    def get_paginator(
        self,
        request: HttpRequest,
        queryset: QuerySet[Any],
        per_page: int,
        orphans: int = 0,
        allow_empty_first_page: bool = True,  # noqa: FBT001, FBT002  Django's
    ) -> Paginator[Any]:
        """Of one set, its counters know how many there are; else they are counted up to a cap."""
        arguments = (queryset, per_page, orphans, allow_empty_first_page)
        chosen = {key for key in FILTERS if request.GET.get(key)}
        if (
            request.GET.get("q")
            or "taskset" not in chosen
            or request.GET.get("role") == "callbacks"
        ):
            return CappedPaginator(*arguments)
        taskset = chosen_set(request)
        narrower = chosen - {"taskset", "role"}
        if taskset is None:
            return CappedPaginator(*arguments)
        if not narrower:
            return OrdinalPaginator(*arguments, count=taskset.total)
        count = _known_count(request, taskset, narrower)
        if count is None:
            return CappedPaginator(*arguments)
        return CountedPaginator(*arguments, count=count)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The list; that of a set under the set's own bar and counts."""
        links = Links(self.admin_site, request)
        taskset = chosen_set(request) if links.admin_of(TaskSetRecord) is not None else None
        extra: dict[str, Any] = {}
        if taskset is not None:
            page = SetPage(taskset, links)
            extra = {
                "page": page,
                "is_live": page.live.is_live,
                "taskset_url": links.page_of(TaskSetRecord, taskset.pk),
                "progress_url": links.own("tasksets_progress"),
            }
        return super().changelist_view(request, extra | (extra_context or {}))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """The page of one subtask."""
        record = context["original"]
        values = request.user.has_perm(f"{self.opts.app_label}.view_subtask_values")
        page = SubtaskPage(record, Links(self.admin_site, request), shows_values=values)
        context |= {"page": page, "buttons": self.buttons(request, record)}
        return super().render_change_form(request, context, *args, **kwargs)

    # Deeds

    def perform(
        self,
        request: HttpRequest,
        operation: SubtaskOperation,
        chunks: Iterable[Sequence[SubtaskRecord]],
        given: Given,
    ) -> Told:
        """Chunk by chunk, and in each set by set, so that each set's history has its number."""
        chosen = done = 0
        by_set: dict[uuid.UUID, list[int]] = {}
        for chunk in chunks:
            for key, rows in _by_set(chunk).items():
                try:
                    reached = operation.run([row.pk for row in rows], given)
                except TaskSetsError as error:
                    return Told(f"{error}", messages.ERROR)
                chosen, done = chosen + len(rows), done + reached
                if key is None or len(chunk) == 1:
                    self._log_subtasks(request, operation, rows, reached)
                else:
                    counts = by_set.setdefault(key, [0, 0])
                    counts[0] += len(rows)
                    counts[1] += reached
        self._log_sets(request, operation, by_set)
        text = told_of_subtasks(operation, chosen, done)
        return Told(text, messages.SUCCESS if done else messages.WARNING)

    def _log_subtasks(
        self,
        request: HttpRequest,
        operation: SubtaskOperation,
        rows: Sequence[SubtaskRecord],
        reached: int,
    ) -> None:
        text = f"{operation.name}: {told_of_subtasks(operation, len(rows), reached)}"
        for row in rows:
            self.log_change(request, row, text)

    def _log_sets(
        self, request: HttpRequest, operation: SubtaskOperation, by_set: dict[uuid.UUID, list[int]]
    ) -> None:
        if not by_set:
            return
        sets = TaskSetRecord.objects.using(current().DATABASE).only("id", "name").in_bulk(by_set)
        for key, record in sets.items():
            self.log_change(
                request, record, f"{operation.name}: {told_of_subtasks(operation, *by_set[key])}"
            )


def _known_count(request: HttpRequest, taskset: TaskSetRecord, narrower: set[str]) -> int | None:
    """How many members there are, if somebody has counted them already."""
    if narrower == {"status"}:
        column = COUNTED.get(request.GET["status"])
        return None if column is None else int(getattr(taskset, column))
    if narrower == {"error"} or (
        narrower == {"error", "status"} and request.GET["status"] == "failed"
    ):
        groups = ErrorGroupRecord.objects.using(current().DATABASE)
        mine = groups.filter(taskset_id=taskset.pk, fingerprint=request.GET["error"])
        return mine.values_list("count", flat=True).first() or 0
    return None


def _by_set(rows: Iterable[SubtaskRecord]) -> dict[uuid.UUID | None, list[SubtaskRecord]]:
    found: dict[uuid.UUID | None, list[SubtaskRecord]] = {}
    for row in rows:
        found.setdefault(row.taskset_id, []).append(row)
    return found
