"""`manage.py runtaskworker`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import InterfaceError, OperationalError

from ...conf import current
from ...worker.connections import wait_for_store
from ...worker.options import WorkerOptions
from ...worker.supervisor import Supervisor
from ..arguments import positive, queue_names, seconds, size, some_seconds


class Command(BaseCommand):
    """Executes subtasks until it is stopped: once to end what runs, twice to end at once."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """The options of WorkerOptions."""
        defaults = WorkerOptions(alias="")
        parser.add_argument(
            "--queues",
            "--queue-name",
            dest="queues",
            type=queue_names,
            default=(),
            help="queues to take from, separated by commas; all by default",
        )
        parser.add_argument(
            "--processes", type=positive, default=defaults.processes, help="default: %(default)s"
        )
        parser.add_argument(
            "--threads", type=positive, default=4, help="in each process; default: %(default)s"
        )
        parser.add_argument(
            "--async-concurrency",
            type=positive,
            default=defaults.async_concurrency,
            help="async tasks at once in each process; default: %(default)s",
        )
        parser.add_argument(
            "--burst", "--batch", action="store_true", help="exit once nothing is left to do"
        )
        parser.add_argument(
            "--max-tasks", type=positive, help="replace a process after so many subtasks"
        )
        parser.add_argument(
            "--max-memory",
            type=size,
            metavar="SIZE",
            help="replace a process that has grown beyond this, for example 500M or 2G",
        )
        parser.add_argument(
            "--grace",
            type=seconds,
            default=current().GRACE,
            help="seconds that running subtasks get when stopping; default: %(default)s",
        )
        parser.add_argument(
            "--reload",
            action=argparse.BooleanOptionalAction,
            default=settings.DEBUG,
            help="start anew when code changes; default: as DEBUG",
        )
        parser.add_argument(
            "--progress", action="store_true", help="show how the running task sets stand"
        )
        parser.add_argument(
            "--interval",
            type=some_seconds,
            default=current().POLL_INTERVAL,
            help="seconds between looks for work where no wake-ups come; default: %(default)s",
        )
        parser.add_argument(
            "--health-file",
            type=Path,
            metavar="PATH",
            help="a file to touch every second while all heartbeats are confirmed",
        )
        # Options of django-tasks' db_worker that have no meaning here, so that it can be replaced
        # by this one in scripts as they are.
        for name in ("--backend", "--worker-id"):
            parser.add_argument(name, help=argparse.SUPPRESS)
        parser.add_argument(
            "--startup-delay", action=argparse.BooleanOptionalAction, help=argparse.SUPPRESS
        )

    def check(self, *args: Any, **options: Any) -> None:
        """Run the checks, without those that ask a database that is away: it is waited for."""
        try:
            super().check(*args, **options)
        except (InterfaceError, OperationalError) as error:
            self.stderr.write(f"The database was not checked: {error}")
            super().check(*args, **options | {"databases": []})

    def handle(self, **options: Any) -> None:
        """Run the supervisor, and exit with its code."""
        configure_logging(logging.getLogger("django_tasksets"), options["verbosity"])
        names = WorkerOptions.__dataclass_fields__.keys() & options.keys()
        worker_options = WorkerOptions(
            alias=current().DATABASE, **{name: options[name] for name in names}
        )
        wait_for_store(worker_options.alias)
        sys.exit(Supervisor(worker_options).run())


def configure_logging(logger: logging.Logger, verbosity: int) -> None:
    """Show this log on stderr, as far as the project has not decided about it."""
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel({0: logging.ERROR, 1: logging.INFO}.get(verbosity, logging.DEBUG))
