"""docs/howto/several-databases.md as a project of its own, on two databases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, Page

SETTINGS = """
SECRET_KEY = "tests"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_tasksets"]
DATABASES = {
    alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{alias}.sqlite3"}
    for alias in ("default", "tasks")
}
"""
SCRIPT = """
import json

import django

django.setup()

from django.contrib.auth.models import User
from django.db import transaction

from django_tasksets import TaskSet, TaskSetResult, task
from django_tasksets.models import TaskSetRecord
from django_tasksets.testing import run_subtasks

seen = {}


@task
def one():
    return 1


user = User.objects.create(username="me")
try:
    with transaction.atomic():
        result = TaskSet([one.subtask()], owner=user, related=user).apply_async()
        raise ZeroDivisionError
except ZeroDivisionError:
    seen["after a rollback"] = str(result.status)
run_subtasks()
seen["results"] = result.join()
seen["where"] = [TaskSetRecord.objects.using(alias).count() for alias in ("default", "tasks")]
seen["by the router"] = TaskSetRecord.objects.count()
seen["owner"] = result.record.owner.username
seen["related"] = result.record.related
key = user.pk
user.delete()
seen["owner_id stays"] = result.record.owner_id == key
try:
    result.record.owner
except User.DoesNotExist:
    seen["owner is gone"] = True
print(json.dumps(seen))
"""


def run(directory: Path, *arguments: str) -> str:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "settings",
        "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)]),
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that the page describes, after the commands that it tells to type."""
    directory = tmp_path_factory.mktemp("project")
    page = Page("docs/howto/several-databases.md")
    setting, router, routers, _ = [block.code for block in page.blocks("python")]
    (directory / "settings.py").write_text(SETTINGS + setting + routers)
    (directory / "shop").mkdir()
    (directory / "shop" / "routers.py").write_text(router)
    commands = next(page.blocks("console")).code.splitlines()
    for command in commands:
        _, _, arguments = command.partition("manage.py ")
        run(directory, "-m", "django", *arguments.split(), "--verbosity=0")
    return directory


def test_it_is_as_the_page_says(project: Path) -> None:
    (project / "script.py").write_text(SCRIPT)
    seen: dict[str, Any] = json.loads(run(project, "script.py"))
    assert seen == {
        "after a rollback": "RUNNING",
        "results": [1],
        "where": [0, 1],
        "by the router": 1,
        "owner": "me",
        "related": None,
        "owner_id stays": True,
        "owner is gone": True,
    }
