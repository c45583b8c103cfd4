"""What our commands have in common."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from ..conf import current
from ..models import TaskSetRecord


class DatabaseCommand(BaseCommand):
    """A command over our tables, which says so where there are none yet."""

    def execute(self, *args: Any, **options: Any) -> Any:
        """As Django's; raises CommandError where `migrate` has not been run."""
        try:
            return super().execute(*args, **options)
        except DatabaseError as error:
            alias = current().DATABASE
            if TaskSetRecord._meta.db_table in connections[alias].introspection.table_names():
                raise
            message = f"The database {alias!r} has no tables of tasksets yet: run `migrate`."
            raise CommandError(message) from error
