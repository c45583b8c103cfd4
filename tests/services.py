"""What the suite runs on. Standard library only: `python3 tests` reads it without Django."""

from __future__ import annotations

import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

RUN = "TASKSETS_TEST_RUN"
"""The environment variable that names a run: two at a time must not share a database."""
DATABASE = "TASKSETS_TEST_DATABASE"
"""The environment variable that says on which of DATABASES."""
DATABASE_NAME = "TASKSETS_TEST_DATABASE_NAME"
"""The environment variable that leads a child process to the test database of its parent."""

Server = dict[str, str]
"""HOST, PORT, USER and PASSWORD, as Django's DATABASES has them."""


def _server(prefix: str, port: str, user: str) -> Server:
    """Where a server is, from the variables that its own clients read."""
    return {
        "HOST": os.environ.get(f"{prefix}HOST", "127.0.0.1"),
        "PORT": os.environ.get(f"{prefix}PORT", port),
        "USER": os.environ.get(f"{prefix}USER", user),
        "PASSWORD": os.environ.get(f"{prefix}PASSWORD", ""),
    }


@dataclass(frozen=True)
class Database:
    """One kind of database."""

    title: str
    engine: str
    server: Server | None = None
    options: tuple[tuple[str, Any], ...] = ()
    extra: str = ""
    """The extra of this package that installs the driver."""
    advice: str = "see above"
    """What to do where the driver cannot be installed."""

    def settings(self) -> dict[str, Any]:
        """Its entry in Django's DATABASES."""
        name = f"tasksets_{os.environ.get(RUN, '')}"
        # With a server, Django puts test_ before the name.
        test: dict[str, str] = {}
        if self.server is None:
            # A file, not memory: threads and processes have connections of their own.
            name = str(Path(tempfile.gettempdir()) / f"{name}.sqlite3")
            test = {"NAME": name}
        return {
            "ENGINE": f"django.db.backends.{self.engine}",
            "NAME": os.environ.get(DATABASE_NAME, name),
            "OPTIONS": dict(self.options),
            "TEST": test,
            **(self.server or {}),
        }

    def absent(self) -> str | None:
        """Why it cannot be used, if so."""
        if self.server is None:
            return None
        return _no_answer(self.title, self.server["HOST"], int(self.server["PORT"]))


WAL = (
    ("init_command", "PRAGMA journal_mode = wal; PRAGMA synchronous = normal"),
    ("transaction_mode", "IMMEDIATE"),
    ("timeout", 20),
)
DATABASES = {
    "sqlite": Database("SQLite", "sqlite3", options=WAL),
    "postgresql": Database(
        "PostgreSQL", "postgresql", _server("PG", "5432", "postgres"), extra="postgres"
    ),
    "mysql": Database(
        "MariaDB",
        "mysql",
        _server("MYSQL_", "3306", "root"),
        extra="mysql",
        advice="it is compiled, with gcc, pkg-config and the headers in libmariadb-dev",
    ),
}
REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")


def redis_absent() -> str | None:
    """Why Redis cannot be used, if so."""
    url = urlsplit(REDIS_URL)
    return _no_answer("Redis", url.hostname or "127.0.0.1", url.port or 6379)


def under_ci() -> bool:
    """Nobody is watching: what is absent is an error, not something to skip."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def _no_answer(title: str, host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError as error:
        return f"{title} does not answer at {host}:{port} ({error})"
    return None
