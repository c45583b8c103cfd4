"""Where a process that is to fail at a point begins to."""

from __future__ import annotations

import os

from django.apps import AppConfig

from tests.chaos import failpoints


class ChaosConfig(AppConfig):
    name = "tests.chaos"

    def ready(self) -> None:
        if failpoints.POINT in os.environ:
            failpoints.install()
