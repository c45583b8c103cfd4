"""The database's time in queries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, Expression, ExpressionWrapper, Value, functions
from django.db.models.sql.compiler import SQLCompiler

from ..calls import Seconds


class Now(functions.Now):
    """Django's Now(), in UTC on MySQL as well, where Django stores UTC and asks for local time."""

    def as_mysql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any
    ) -> tuple[str, Any]:
        """As SQL."""
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra)


def from_now(seconds: Seconds) -> Expression:
    """A moment so many seconds from the database's now."""
    span = Value(timedelta(seconds=seconds))
    return ExpressionWrapper(Now() + span, output_field=DateTimeField())
