"""What all our admins share: they look, and no form of theirs writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.forms import Media, Script
from django.http import HttpRequest, HttpResponse

from ..conf import current
from .paginators import CappedPaginator

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Model]
    _ChangeList = ChangeList
else:
    _ModelAdmin = _ChangeList = object

CHUNK = 500
Column = str | Callable[[Any], Any]
# All of our pages have the same two; a module is deferred and runs once.
SCRIPTS: Any = (Script("tasksets/admin.js", type="module"),)
MEDIA = Media(css={"all": ("tasksets/admin.css",)}, js=SCRIPTS)


class WindowMixin(_ModelAdmin):
    """Nothing can be added, changed or deleted; what can be done has a permission of its own."""

    # Without actions on top, the changelist's template has an inline style.
    actions_on_top = True
    list_max_show_all = 100
    list_select_related = False
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    view_on_site = False
    paginator = CappedPaginator
    parameters: frozenset[str] = frozenset()
    """What the address of the list may filter by: nothing else can be asked for."""

    @property
    def media(self) -> Media:
        """Ours, after Django's: no template of ours names a file."""
        return super().media + MEDIA

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """The rows, where they are: no router is asked."""
        rows: QuerySet[Any] = self.model._default_manager.using(current().DATABASE)
        return rows.order_by(*self.get_ordering(request))

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any | None:
        """The row with all its columns, which lists leave out."""
        try:
            key = self.opts.pk.to_python(object_id)
        except ValidationError:
            return None
        return self.get_queryset(request).defer(None).filter(pk=key).first()

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Of a row that one may look at: who may not is not told either whether there is one."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return super().history_view(request, object_id, extra_context)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The theme's or Django's, bounded."""
        return type("BoundedChangeList", (_Bounded, super().get_changelist(request, **kwargs)), {})

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Only our own filters. Else `?args__contains=` would tell what is in the arguments."""
        return lookup in self.parameters

    # Permissions

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Rows are made by applying."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Rows are changed by the flow."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Not by Django's pages, which collect every row below first; sets have a button."""
        return False

    def may(self, request: HttpRequest, action: str) -> bool:
        """Whether the user may do that here: there is a permission for each thing to do."""
        codename = get_permission_codename(action, self.opts)
        return self.has_view_permission(request) and request.user.has_perm(
            f"{self.opts.app_label}.{codename}"
        )


class _Bounded(_ChangeList):
    """A list of what fits on a page according to the count, which is not of this very moment."""

    def get_results(self, request: HttpRequest) -> None:
        """No more rows than a page may hold, even if there are more than were counted."""
        super().get_results(request)
        self.result_list = self.result_list[: max(self.list_per_page, self.list_max_show_all)]


def in_chunks(rows: QuerySet[Any]) -> Iterator[Sequence[Any]]:
    """The rows by their keys, a chunk at a time, each asked for when the one before is done.

    So that what has been done to the earlier ones, which may not match any more, moves nothing.
    """
    rows = rows.order_by("pk")
    chunk = list(rows[:CHUNK])
    while chunk:
        yield chunk
        chunk = list(rows.filter(pk__gt=chunk[-1].pk)[:CHUNK])
