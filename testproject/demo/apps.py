"""The demo's app."""

from __future__ import annotations

from django.apps import AppConfig


class DemoConfig(AppConfig):
    """Its `tasks` module is found by django_tasksets at start."""

    name = "demo"
    default_auto_field = "django.db.models.BigAutoField"
