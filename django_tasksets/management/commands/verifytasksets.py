"""`manage.py verifytasksets`."""

from __future__ import annotations

import sys
import uuid
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...exceptions import InvalidId
from ...ids import parse_id
from ...models import TaskSetRecord
from ...store import get_store
from ...verifying import discrepancies, repair
from ..base import DatabaseCommand


class Command(DatabaseCommand):
    """Recounts task sets from their subtasks; exits with 1 if a count is wrong."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """Which, and whether to repair."""
        parser.add_argument("ids", nargs="*", help="task sets to look at; all by default")
        parser.add_argument("--fix", action="store_true", help="write the right counts down")

    def handle(self, **options: Any) -> None:
        """Compare, list what differs, repair if asked to."""
        store = get_store()
        wrong = 0
        ids = [self._id(text) for text in options["ids"]]
        known = TaskSetRecord.objects.using(store.alias).filter(id__in=ids)
        if unknown := set(ids) - set(known.values_list("id", flat=True)):
            raise CommandError(f"there is no task set {', '.join(sorted(map(str, unknown)))}")
        for found in discrepancies(store, ids):
            wrong += 1
            self.stdout.write(str(found))
            if options["fix"] and repair(store, found.taskset_id):
                self.stdout.write("  repaired")
        self.stdout.write(f"{wrong} task sets with wrong counts")
        if wrong and not options["fix"]:
            sys.exit(1)

    def _id(self, text: str) -> uuid.UUID:
        try:
            return parse_id(text)
        except InvalidId as error:
            raise CommandError(str(error)) from error
