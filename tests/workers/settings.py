"""Django settings of workers under test: those of the tests, and what a test adds to TASKSETS."""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS, TASKSETS

SETTINGS = "TASKSETS_TEST_WORKER_SETTINGS"
"""The environment variable that holds settings as JSON."""

INSTALLED_APPS += ["tests.workers", "tests.chaos"]
TASKSETS |= json.loads(os.environ.get(SETTINGS, "{}"))
