"""Addresses within the AdminSite at hand, for those who may follow them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.exceptions import NotRegistered
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString


@dataclass(frozen=True, slots=True)
class Link:
    """A text, and where it leads; without an address it is the text alone."""

    text: str
    url: str = ""

    def __html__(self) -> SafeString:
        if not self.url:
            return format_html("{}", self.text)
        return format_html('<a href="{}">{}</a>', self.url, self.text)

    def __str__(self) -> str:
        return self.__html__()


class Links:
    """Where things are for one user on one site. What is not there for them has no address."""

    def __init__(self, site: AdminSite, request: HttpRequest) -> None:
        self._site = site
        self.request = request

    def admin_of(self, model: type[Model]) -> ModelAdmin[Any] | None:
        """The model's admin here, if it is registered and the user may look."""
        try:
            model_admin = self._site.get_model_admin(model)
        except NotRegistered:
            return None
        return model_admin if model_admin.has_view_permission(self.request) else None

    def list_of(self, model: type[Model], **parameters: object) -> str:
        """The list of rows that the parameters choose."""
        if self.admin_of(model) is None:
            return ""
        query = urlencode({key: str(value) for key, value in parameters.items()})
        return f"{self._reverse(model, 'changelist')}?{query}"

    def page_of(self, model: type[Model], key: object) -> str:
        """The page of one row."""
        return "" if self.admin_of(model) is None else self._reverse(model, "change", key)

    def button(self, model: type[Model], operation: Any, key: object) -> str:
        """Where something is done to a row, for those who may do it."""
        model_admin = self.admin_of(model)
        permits = getattr(model_admin, "permits", None)
        if permits is None or not permits(self.request, operation):
            return ""
        return self._reverse(model, operation.name, key)

    def own(self, name: str) -> str:
        """One of our own addresses on the site."""
        return address(self._site, name)

    def _reverse(self, model: type[Model], name: str, *args: object) -> str:
        opts = model._meta
        return address(self._site, f"{opts.app_label}_{opts.model_name}_{name}", *args)


def address(site: AdminSite, name: str, *args: object) -> str:
    """The address of one of the site's own pages, whatever the site is called."""
    return reverse(f"admin:{name}", args=args, current_app=site.name)
