"""From a button, or the list of actions, to the flow: permission, question, deed, message, log."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from ..conf import current
from .links import address
from .operations import Given, Operation
from .window import WindowMixin, in_chunks

CONFIRMED = "confirmed"
# Rows that are named on the page that asks.
NAMED = 10


class Told(NamedTuple):
    """What the user is told."""

    text: str
    level: int = messages.SUCCESS
    page: uuid.UUID | None = None
    """The row whose page to go to, if not the one whose button it was."""


class ButtonsMixin(WindowMixin):
    """What can be done to the rows of a list, one by one with buttons or to many as an action."""

    operations: ClassVar[dict[str, Any]] = {}

    def perform(
        self,
        request: HttpRequest,
        operation: Any,
        chunks: Iterable[Sequence[Any]],
        given: Given,
    ) -> Told:
        """Do it to all rows, log it, and say what came of it."""
        raise NotImplementedError

    def permits(self, request: HttpRequest, operation: Operation) -> bool:
        """Whether the user may do it."""
        return bool(getattr(self, f"has_{operation.permission}_permission")(request))

    def has_revoke_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """May revoke."""
        return self.may(request, "revoke")

    def has_retry_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """May retry."""
        return self.may(request, "retry")

    # Buttons

    def get_urls(self) -> list[URLPattern]:
        """An address for each button."""
        label = f"{self.opts.app_label}_{self.opts.model_name}"
        ours = [
            path(
                f"<uuid:object_id>/{operation.name}/",
                self.admin_site.admin_view(self._view(operation)),
                name=f"{label}_{operation.name}",
            )
            for operation in self.operations.values()
        ]
        # Before Django's, whose addresses take any text for a key.
        return ours + super().get_urls()

    def _view(self, operation: Operation) -> Callable[..., HttpResponse]:
        # The flow commits step by step: with ATOMIC_REQUESTS a million rows would be one.
        @transaction.non_atomic_requests(using=current().DATABASE)
        def view(request: HttpRequest, object_id: uuid.UUID) -> HttpResponse:
            return self.button_view(request, object_id, operation)

        return view

    def button_view(
        self, request: HttpRequest, object_id: uuid.UUID, operation: Operation
    ) -> HttpResponse:
        """GET asks, if there is a question; POST does it."""
        if not self.permits(request, operation):
            raise PermissionDenied
        if request.method != "POST" and not operation.question:
            return HttpResponseNotAllowed(["POST"])
        record = self.get_object(request, str(object_id))
        if record is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, str(object_id))  # type: ignore[attr-defined, no-any-return]
        if request.method != "POST":
            return self.ask(request, operation, [record], count=1)
        told = self.perform(request, operation, [[record]], given_with(request))
        self.message_user(request, told.text, told.level)
        page = told.page or record.pk
        if self.get_object(request, str(page)) is None:
            return HttpResponseRedirect(self._address("changelist"))
        return HttpResponseRedirect(self._address("change", page))

    def buttons(self, request: HttpRequest, record: Any) -> list[dict[str, Any]]:
        """The buttons that the user may press, for the page of one row."""
        return [
            {
                "operation": operation,
                "url": self._address(operation.name, record.pk),
                "is_shown": operation.can(record),
            }
            for operation in self.operations.values()
            if self.permits(request, operation)
        ]

    def _address(self, name: str, *args: object) -> str:
        label = f"{self.opts.app_label}_{self.opts.model_name}"
        return address(self.admin_site, f"{label}_{name}", *args)

    # Actions

    def act(
        self, request: HttpRequest, queryset: QuerySet[Any], operation: Operation
    ) -> HttpResponse | None:
        """Do it to all selected rows, after asking if it needs to be asked."""
        if operation.question and CONFIRMED not in request.POST:
            rows = list(queryset.order_by("pk")[:NAMED])
            return self.ask(request, operation, rows, count=self._selected(request, queryset))
        told = self.perform(request, operation, in_chunks(queryset), given_with(request))
        self.message_user(request, told.text, told.level)
        return None

    def _selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> int:
        if request.POST.get("select_across") == "1":
            paginator: Any = self.get_paginator(request, queryset, self.list_per_page)
            return int(paginator.count)
        return len(request.POST.getlist(ACTION_CHECKBOX_NAME))

    # The question

    def ask(
        self, request: HttpRequest, operation: Operation, rows: Sequence[Any], *, count: int
    ) -> HttpResponse:
        """The page that asks before it is done."""
        hidden = [
            (ACTION_CHECKBOX_NAME, value) for value in request.POST.getlist(ACTION_CHECKBOX_NAME)
        ]
        if hidden:
            hidden += [("action", action_name(operation)), (CONFIRMED, "1")]
            hidden += [("select_across", request.POST.get("select_across", "0"))]
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": str(operation.label).rstrip("…"),
            "subtitle": str(rows[0]) if count == 1 and rows else None,
            "opts": self.opts,
            "media": self.media,
            "operation": operation,
            "rows": rows,
            "more": count - len(rows),
            "hidden": hidden,
            "back": self._address("change", rows[0].pk) if not hidden and rows else "",
            "changelist": self._address("changelist"),
        }
        return TemplateResponse(request, "admin/tasksets/confirm.html", context)


def given_with(request: HttpRequest) -> Given:
    """What the form says about how to do it."""
    given = {name: request.POST.get(name, "").strip() for name in ("terminate", "fingerprint")}
    by = f"revoked by {request.user.get_username()}"
    return given | {"reason": request.POST.get("reason", "").strip()[:200] or by[:200]}


def as_action(operation: Operation) -> Callable[..., HttpResponse | None]:
    """The operation as an action of the list, with its permission."""

    @admin.action(permissions=[operation.permission], description=operation.selected)
    def action(
        model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponse | None:
        answer: HttpResponse | None = model_admin.act(request, queryset, operation)
        return answer

    action.__name__ = action_name(operation)
    return action


def action_name(operation: Operation) -> str:
    """By which the list's form names it."""
    return f"{operation.name}_selected"
