"""Where workers find the tasks of tests/tasks_worker.py: this app is not installed everywhere."""

from __future__ import annotations

from tests import tasks_worker as tasks_worker
