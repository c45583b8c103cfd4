"""The demo, from an empty database to the report: what `python3 testproject` runs."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import urljoin

import django
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import DatabaseError, connections
from django.db.migrations.exceptions import InconsistentMigrationHistory

from .children import STATE, Children, DemoError, UnfitStateError
from .site import Site
from .surveys import installed_django
from .terminal import Bar, print_report

USUAL_PORT = 8000
START_LIMIT = 30.0
"""Seconds until the site has to answer."""
STALL_LIMIT = 60.0
"""Seconds without any progress after which the census is given up."""


def main(argv: Sequence[str]) -> int:
    """Show it. 0 once the report was delivered, 1 if it was not, 130 on an early Ctrl-C."""
    options = _parse(argv)
    # As with Ctrl-C, the processes must be ended before this one goes.
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        if signal.getsignal(number) != signal.SIG_IGN:  # As nohup asks for.
            signal.signal(number, _leave)
    try:
        with Children(STATE) as children:
            _prepare()
            page, delivered = _survey(children, options.path, options.port)
            if not options.once:
                _stay(children, page)
            return 0 if delivered else 1
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything is ended.")
        return 130


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 testproject",
        description="A census of a source tree, one subtask for each file, on SQLite.",
    )
    parser.add_argument("--path", type=_directory, help="the tree (default: Django itself)")
    parser.add_argument("--port", type=int, help=f"default: {USUAL_PORT}, or any free one")
    parser.add_argument("--once", action="store_true", help="end after the report")
    return parser.parse_args(argv)


def _directory(value: str) -> Path:
    path = Path(value).expanduser().resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {value}")
    return path


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _prepare() -> None:
    """A database with all tables, and somebody who may see the admin."""
    # Not setdefault: the settings that somebody works with elsewhere are not the demo's.
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    django.setup()
    print(f"Preparing the database in {STATE} ...", flush=True)
    try:
        call_command("migrate", verbosity=0)
    except (DatabaseError, InconsistentMigrationHistory) as error:
        raise UnfitStateError(f"The database cannot be brought up to date: {error}") from error
    user_model = get_user_model()
    if not user_model.objects.filter(username="admin").exists():
        user_model.objects.create_superuser("admin", password="admin")  # noqa: S106  a demo
    connections.close_all()


def _survey(children: Children, path: Path | None, port: int | None) -> tuple[str, bool]:
    """Start the site and a worker, and take the census: its page, and whether it has a report."""
    site = Site(f"http://127.0.0.1:{_free_port(port)}/")
    print(f"Starting the site at {site.address} and a worker ...", flush=True)
    children.start("site", "runserver", "--noreload", site.address[len("http://") : -1])
    children.start("worker", "runtaskworker", "--no-reload")
    _await_site(children, site)
    root = path or installed_django()
    page = site.start_census(str(root))
    print(f"Census of {root}, live at {page}", flush=True)
    progress = _watch(children, site, page)
    if progress["status"] != "PUBLISHED":
        print(
            f"There is no report: {progress['failed']:,} of {progress['total']:,} files could "
            f"not be surveyed.\n{children.last_lines('worker')}"
        )
        return page, False
    print("The last file is done, and the callback has delivered the report:\n")
    print_report(progress)
    return page, True


def _free_port(wanted: int | None) -> int:
    """The port that is wanted, or the usual one, or any other if that is taken."""
    for port in (USUAL_PORT, 0) if wanted is None else (wanted,):
        with socket.socket() as probe:
            if os.name == "posix":  # A connection that was closed just now does not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            return int(probe.getsockname()[1])
    raise DemoError(
        f"Port {wanted} is taken, or not for this user; leave --port out for a free one."
    )


def _await_site(children: Children, site: Site) -> None:
    deadline = time.monotonic() + START_LIMIT
    while not site.answers():
        children.check()
        if time.monotonic() > deadline:
            raise DemoError(f"The site did not come up.\n{children.last_lines('site')}")
        time.sleep(0.1)


def _watch(children: Children, site: Site, page: str) -> dict[str, Any]:
    """Show the bar until the callback has written its report."""
    bar = Bar()
    finished, moved_at = -1, time.monotonic()
    while (progress := site.progress(page))["status"] == "COUNTING":
        bar.show(progress)
        if progress["finished"] != finished:
            finished, moved_at = progress["finished"], time.monotonic()
        if time.monotonic() - moved_at > STALL_LIMIT:
            raise DemoError(
                f"Nothing has happened for {STALL_LIMIT:.0f} seconds.\n"
                f"{children.last_lines('worker')}"
            )
        children.check()
        time.sleep(0.1)
    bar.close(progress)
    return progress


def _stay(children: Children, page: str) -> None:
    """Keep everything up for the person at the browser; Ctrl-C is the way to end it."""
    print(f"\n  The page:   {page}")
    print(f"  The admin:  {urljoin(page, '/admin/')} (user admin, password admin)")
    print("\nCtrl-C ends the demo.", flush=True)
    try:
        while True:
            children.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        print("\nEnding the site and the worker ...", flush=True)
