"""What lists can be filtered by. None of them asks the table which values there are."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..conf import current
from ..exceptions import InvalidId
from ..ids import parse_id
from ..models import TaskSetRecord
from ..statuses import Role, SubtaskStatus, TaskSetStatus
from . import words

UNFINISHED_KEY = "unfinished"
RUNNING = Q(status=TaskSetStatus.RUNNING)
# The words that are shown in place of RUNNING, and which rows they are shown for; see words.
STATED = {
    "revoking": RUNNING & Q(revoke_requested_at__isnull=False),
    "paused": RUNNING & Q(revoke_requested_at=None, paused_at__isnull=False),
    "open": RUNNING & Q(revoke_requested_at=None, paused_at=None, sealed_at=None),
    "running": RUNNING & Q(revoke_requested_at=None, paused_at=None, sealed_at__isnull=False),
}
Rows = QuerySet[Any]


def key_in(request: HttpRequest, parameter: str) -> uuid.UUID | None:
    """The id that a parameter of the list's address gives."""
    value = request.GET.get(parameter)
    if not value:
        return None
    try:
        return parse_id(value)
    except InvalidId as error:
        raise IncorrectLookupParameters from error


def chosen_set(request: HttpRequest) -> TaskSetRecord | None:
    """The set whose subtasks the list shows, read once for each request."""
    try:
        key = key_in(request, "taskset")
    except IncorrectLookupParameters:  # The list itself answers that.
        return None
    if key is None:
        return None
    if not hasattr(request, "_tasksets_chosen"):
        sets = TaskSetRecord.objects.using(current().DATABASE).defer("metadata", "saved_ids")
        request._tasksets_chosen = sets.filter(pk=key).first()  # type: ignore[attr-defined]
    found: TaskSetRecord | None = request._tasksets_chosen  # type: ignore[attr-defined]
    return found


class SetStatusFilter(SimpleListFilter):
    """Sets by the status that is shown of them."""

    title = gettext_lazy("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """All words that a set's status may be."""
        finished = [status for status in TaskSetStatus if status != TaskSetStatus.RUNNING]
        return [
            (UNFINISHED_KEY, _("Unfinished")),
            ("running", str(TaskSetStatus.RUNNING.label)),
            *((key, str(words.LABELS[key])) for key in ("open", "paused", "revoking")),
            *((status.lower(), str(status.label)) for status in finished),
        ]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        """The sets for which that word is shown."""
        value = self.value()
        if value is None:
            return queryset
        if value == UNFINISHED_KEY:
            return queryset.filter(RUNNING)
        if value in STATED:
            return queryset.filter(STATED[value])
        return queryset.filter(status=value.upper())


class SubtaskStatusFilter(SimpleListFilter):
    """Subtasks by status, or all that is unfinished."""

    title = gettext_lazy("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The statuses."""
        statuses = [(status.value.lower(), str(status.label)) for status in SubtaskStatus]
        return [(UNFINISHED_KEY, _("Unfinished")), *statuses]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        """Those in that status."""
        value = self.value()
        if value is None:
            return queryset
        if value == UNFINISHED_KEY:
            return queryset.filter(_unfinished(chosen_set(request)))
        return queryset.filter(status=value.upper())


def _unfinished(taskset: TaskSetRecord | None) -> Q:
    """One condition for each status: PostgreSQL has a partial index for each but WAITING.

    Members wait in a paused set only; for any other one the index saves reading all of it.
    """
    statuses = (SubtaskStatus.READY, SubtaskStatus.SCHEDULED, SubtaskStatus.RUNNING)
    condition = Q()
    for status in statuses:
        condition |= Q(status=status)
    if taskset is None or taskset.paused_at is not None:
        condition |= Q(status=SubtaskStatus.WAITING)
    return condition


class RoleFilter(SimpleListFilter):
    """Members or callbacks. Of one set the members are listed, unless callbacks are asked for."""

    title = gettext_lazy("role")
    parameter_name = "role"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The two."""
        return [("members", _("Members")), ("callbacks", _("Callbacks"))]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        """Callbacks have negative positions, which an index knows; members are all the others.

        Not by their positions, of which the paginator chooses a range: given two lower bounds,
        SQLite may go by the lower one.
        """
        in_set = bool(request.GET.get(SetFilter.parameter_name))
        value = self.value() or ("members" if in_set else None)
        if value == "members":
            return queryset.filter(role=Role.MEMBER)
        if value == "callbacks":
            return queryset.filter(position__lt=0)
        return queryset

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Of one set there is no choice of all."""
        choices: list[Any] = list(super().choices(changelist))
        if self.request.GET.get(SetFilter.parameter_name):
            del choices[0]
            if self.value() is None:
                choices[0]["selected"] = True
        return iter(choices)


class ChosenFilter(SimpleListFilter):
    """A filter that links lead to. It offers nothing but to be taken off again."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """What was chosen, if something was."""
        value = self.value()
        return [(value, self.label())] if value else []

    def label(self) -> str:
        """What the choice is called."""
        return words.short_id(self.value())


class SetFilter(ChosenFilter):
    """Subtasks of one set."""

    title = gettext_lazy("task set")
    parameter_name = "taskset"

    def label(self) -> str:
        """The set's name."""
        taskset = chosen_set(self.request)
        return Truncator(taskset.name).chars(40) if taskset and taskset.name else super().label()

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        """Its members and callbacks."""
        return queryset.filter(taskset_id=key_in(request, "taskset"))


class ErrorFilter(ChosenFilter):
    """Subtasks that failed with one kind of error."""

    title = gettext_lazy("error")
    parameter_name = "error"

    def label(self) -> str:
        """The list says in each row which one it is."""
        return _("This one only")

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        """Those whose last failure it was."""
        return queryset.filter(status=SubtaskStatus.FAILED, error_fingerprint=self.value())


class WorkerFilter(ChosenFilter):
    """Subtasks that a worker holds."""

    title = gettext_lazy("worker")
    parameter_name = "worker"

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        """Those that it has claimed and not recorded."""
        return queryset.filter(status=SubtaskStatus.RUNNING, worker_id=key_in(request, "worker"))
