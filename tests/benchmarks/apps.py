"""The Django app, so that workers know the tasks."""

from __future__ import annotations

from django.apps import AppConfig

from .counting import count_queries


class BenchmarksConfig(AppConfig):
    """Counts the worker's queries where that is asked for."""

    name = "tests.benchmarks"

    def ready(self) -> None:
        count_queries()
