"""Wake-ups over PostgreSQL's NOTIFY."""

from __future__ import annotations

import select
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from ..calls import Seconds
from .contract import Bell, Listener

CHANNEL: Final = "django_tasksets"
HINT: Final = f"NOTIFY {CHANNEL}"


class NotificationListener(Listener):
    """Waits for NOTIFY on a connection that is used for other things too: what comes along with the
    answer to a statement is a hint for the next wait."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
        self._session: Any = connection.connection
        self._session.add_notify_handler(self._note)
        self._errors = connection.wrap_database_errors
        self._heard = False

    def _note(self, _: object) -> None:
        self._heard = True

    def wait(self, timeout: Seconds, bell: Bell) -> bool:
        with self._errors:
            if not self._heard:
                readable = select.select([self._session, bell], [], [], timeout)[0]
                if self._session in readable:
                    self._read()
        heard, self._heard = self._heard, False
        return heard

    def _read(self) -> None:
        """Take what the server has sent unasked: by way of libpq, for psycopg's own way to wait is
        not for connections with a handler."""
        self._session.pgconn.consume_input()
        while self._session.pgconn.notifies() is not None:
            self._heard = True

    def close(self) -> None:
        self._session.remove_notify_handler(self._note)
