"""The censuses in the admin; their task sets are there by themselves."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from .models import Census


@admin.register(Census)
class CensusAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    """To look at: a census is started from its page, and written by its callbacks."""

    list_display = ("path", "status", "created_at", "finished_at")
    list_filter = ("status",)
    search_fields = ("path",)
    date_hierarchy = "created_at"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Census | None = None) -> bool:
        return False
