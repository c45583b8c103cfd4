"""Fixtures that tests of every kind rely on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from hypothesis import settings

from tests import services

# How long an example takes says more of what else the machine does.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

ROOT = Path(__file__).resolve().parent.parent
# One at a time: these look at processes, signals and screens of the whole machine.
MARKS_OF_DIRECTORIES = {
    "processes": pytest.mark.processes,
    "browser": pytest.mark.browser,
    "chaos": pytest.mark.chaos,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in certain directories, so that no file can forget to."""
    for item in items:
        for directory, mark in MARKS_OF_DIRECTORIES.items():
            if directory in item.path.relative_to(ROOT).parts:
                item.add_marker(mark)


@pytest.fixture
def other_connection(transactional_db: None) -> Iterator[BaseDatabaseWrapper]:
    """A second connection to the test database, as another process would hold it.

    Django knows it by the alias `other`: `TaskSetRecord.objects.using("other")`,
    `transaction.atomic(using="other")`. In this thread only.
    """
    connection = connections[DEFAULT_DB_ALIAS].copy(alias="other")
    connections["other"] = connection
    try:
        yield connection
    finally:
        connection.close()
        del connections["other"]


@pytest.fixture
def child_environment(transactional_db: None) -> dict[str, str]:
    """Environment variables with which a child process works on this test's database."""
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "testproject")]),
        services.DATABASE_NAME: str(connections[DEFAULT_DB_ALIAS].settings_dict["NAME"]),
    }


@pytest.fixture(scope="session")
def redis_url() -> str:
    """Where Redis answers. Without one the test is skipped; under CI it is an error."""
    if absent := services.redis_absent():
        if services.under_ci():
            pytest.fail(absent, pytrace=False)
        pytest.skip(absent)
    return services.REDIS_URL


@pytest.fixture
def requires_redis(redis_url: str) -> None:
    """For `pytest.mark.usefixtures`: the test needs Redis, by the cache alias `redis`."""
