"""Wake-ups over PostgreSQL's NOTIFY."""

from __future__ import annotations

import select
from typing import Any, Final

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

from ..calls import Seconds
from .contract import Bell, Listener

CHANNEL: Final = "django_tasksets"


class NotificationListener(Listener):
    """Waits for NOTIFY on a session of its own."""

    patience = 4

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        parameters: dict[str, Any] = connection.get_connection_params()
        with connection.wrap_database_errors:
            self._session = psycopg.connect(**parameters | {"autocommit": True})
            self._session.execute(f"LISTEN {CHANNEL}")
        self._errors = connection.wrap_database_errors

    def wait(self, timeout: Seconds, bell: Bell) -> bool:
        readable, _, _ = select.select([self._session, bell], [], [], timeout)
        if self._session not in readable:
            return False
        with self._errors:
            return bool(list(self._session.notifies(timeout=0)))

    def close(self) -> None:
        self._session.close()
