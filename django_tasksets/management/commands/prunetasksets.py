"""`manage.py prunetasksets`."""

from __future__ import annotations

import argparse
import datetime
import re
from typing import Any

from django.core.management.base import CommandParser

from ...conf import current
from ...pruning import Retention, prune
from ..base import DatabaseCommand

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Command(DatabaseCommand):
    """Deletes finished task sets and single subtasks that are past their retention."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """How long to keep what."""
        parser.add_argument(
            "--older-than",
            type=duration,
            help="keep successful ones this long, for example 36h or 14d; default: RETENTION",
        )
        parser.add_argument(
            "--failed-older-than",
            type=duration,
            help="keep failed and revoked ones this long; default: FAILED_RETENTION",
        )
        parser.add_argument("--dry-run", action="store_true", help="count, delete nothing")

    def handle(self, **options: Any) -> None:
        """Delete, and say how much."""
        settings = current()
        retention = Retention(
            successful=options["older_than"] or settings.RETENTION,
            others=options["failed_older_than"] or settings.FAILED_RETENTION,
        )
        pruned = prune(retention, dry_run=options["dry_run"])
        verb = "would delete" if options["dry_run"] else "deleted"
        self.stdout.write(
            f"{verb} {pruned.sets} task sets, {pruned.subtasks} single subtasks and "
            f"{pruned.workers} lost workers"
        )


def duration(text: str) -> datetime.timedelta:
    """An argument like 90m or 14d."""
    match = re.fullmatch(r"(\d+)([smhdw])", text)
    if match is None:
        raise argparse.ArgumentTypeError("expected a number and a unit: s, m, h, d or w")
    return datetime.timedelta(**{UNITS[match[2]]: int(match[1])})
