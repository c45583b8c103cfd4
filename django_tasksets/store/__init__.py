"""Everything that depends on the database is in this package; only here is asked which it is."""

from __future__ import annotations

from functools import cache

from django.db import connections

from ..conf import current
from .contract import Store
from .portable import PortableStore


def get_store(alias: str | None = None) -> Store:
    """The store on the database `alias`, by default the one in `TASKSETS["DATABASE"]`."""
    return _store(alias or current().DATABASE)


@cache
def _store(alias: str) -> Store:
    connection = connections[alias]
    if connection.vendor == "sqlite":
        return _sqlite(alias)
    if connection.vendor == "postgresql" and hasattr(connection, "pool"):
        return _postgresql(alias)
    if connection.vendor == "mysql" and connection.features.has_select_for_update_skip_locked:
        from .mysql import MySQLStore

        return MySQLStore(alias)
    return PortableStore(alias)


def _sqlite(alias: str) -> Store:
    from sqlite3 import sqlite_version_info

    # Before 3.38 RETURNING, UPDATE ... FROM or the functions for JSON may be missing.
    if sqlite_version_info < (3, 38):
        return PortableStore(alias)
    from .sqlite import SQLiteStore

    return SQLiteStore(alias)


def _postgresql(alias: str) -> Store:
    # psycopg 2 has neither COPY as an object nor arrays of UUIDs; Django supports it still.
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    if not is_psycopg3:
        return PortableStore(alias)
    from .postgresql import PostgreSQLStore

    return PostgreSQLStore(alias)
