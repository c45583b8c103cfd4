"""Connections for bookkeeping, apart from those that user code shares."""

from __future__ import annotations

import copy

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend


def private_connection(alias: str) -> BaseDatabaseWrapper:
    """A new, unopened connection to the database of `alias`.

    It has settings of its own, so that what bookkeeping needs leaves the project's alone: never
    from the project's pool, never closed for its age, and on SQLite with transactions that take
    the write lock when they begin (one that reads first cannot wait for it later).
    """
    settings = copy.deepcopy(connections[alias].settings_dict)
    settings |= {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False, "ATOMIC_REQUESTS": False}
    settings["OPTIONS"].pop("pool", None)
    if connections[alias].vendor == "sqlite":
        settings["OPTIONS"]["transaction_mode"] = "IMMEDIATE"
        settings["OPTIONS"].setdefault("timeout", 30)
    wrapper: BaseDatabaseWrapper = load_backend(settings["ENGINE"]).DatabaseWrapper(settings, alias)
    return wrapper
