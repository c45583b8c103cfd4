"""Counts the queries of all processes of a worker: one byte each in a file that they share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

TALLY = "TASKSETS_BENCHMARK_TALLY"
"""The environment variable that names the file; without it nothing is counted."""


def count_queries() -> None:
    """Count the queries of all connections that are made from now on in this process."""
    path = os.environ.get(TALLY)
    if path is None:
        return
    file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def count(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        os.write(file, b".")
        return execute(sql, *arguments)

    def watch(connection: BaseDatabaseWrapper, **_: object) -> None:
        if count not in connection.execute_wrappers:
            connection.execute_wrappers.append(count)

    connection_created.connect(watch, weak=False)
