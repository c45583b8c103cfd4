"""Connections of workers: those for bookkeeping, apart from those that user code shares."""

from __future__ import annotations

import copy
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend

from ..calls import Seconds

# A network may break without a word. With the drivers' defaults a thread that waits for an answer
# would then do so for a quarter of an hour, or for ever, while its worker's heartbeats say that all
# is well. What the project says in its OPTIONS stands.
TIMEOUTS: Final[dict[str, dict[str, Any]]] = {
    "postgresql": {
        "connect_timeout": 10,
        # An idle connection is asked whether it is there: that also keeps firewalls from
        # forgetting it. One that is used has 30 s, in milliseconds, to be acknowledged.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    },
    # These drivers can only limit how long a statement takes. None of ours takes seconds.
    "mysql": {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60},
}


# How long a connection of user code is kept for the next task, where Django's default would close
# it after each: to connect takes longer than most of what is asked then.
REUSED_FOR: Final[Seconds] = 60.0


def reuse_connections() -> None:
    """Keep connections from task to task in this process, before it has made any: each is asked
    whether it is still there before a task uses it.

    What the project says about their age stands, if it is not Django's default; pools keep their
    own. Those to files are not kept: a task that has not read a query to its end would leave the
    next ones an old snapshot, in which they could not write.
    """
    for alias in connections:
        settings = connections.settings[alias]
        has_default = settings["CONN_MAX_AGE"] == 0 and not settings["OPTIONS"].get("pool")
        if has_default and connections[alias].vendor != "sqlite":
            settings |= {"CONN_MAX_AGE": REUSED_FOR, "CONN_HEALTH_CHECKS": True}


def private_connection(alias: str) -> BaseDatabaseWrapper:
    """A new, unopened connection to the database of `alias`.

    It has settings of its own, so that what bookkeeping needs leaves the project's alone: never
    from the project's pool, never closed for its age, with an end to waiting for a server that
    nobody can reach, and on SQLite with transactions that take the write lock when they begin (one
    that reads first cannot wait for it later).
    """
    settings = copy.deepcopy(connections[alias].settings_dict)
    settings |= {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False}
    # Without the first no transaction of ours would ever be committed.
    settings |= {"AUTOCOMMIT": True, "ATOMIC_REQUESTS": False}
    timeouts = TIMEOUTS.get(connections[alias].vendor, {})
    settings["OPTIONS"] = timeouts | settings["OPTIONS"]
    settings["OPTIONS"].pop("pool", None)
    if connections[alias].vendor == "sqlite":
        settings["OPTIONS"]["transaction_mode"] = "IMMEDIATE"
        settings["OPTIONS"].setdefault("timeout", 30)
    wrapper: BaseDatabaseWrapper = load_backend(settings["ENGINE"]).DatabaseWrapper(settings, alias)
    return wrapper
