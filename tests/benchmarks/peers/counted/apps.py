"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class CountedConfig(AppConfig):
    name = "tests.benchmarks.peers.counted"

    def ready(self) -> None:
        from django_tasks.signals import task_finished

        from .tasks import count_down

        task_finished.connect(count_down)
