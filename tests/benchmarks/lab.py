"""What the benchmarks share: a scratch database, a real worker, and a table of figures.

Each script measures one kind of database in a process of its own, so that the default database of
a Django project is what is measured, and so that nothing is warmed up by another measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests import services

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")

WAKEUPS = "TASKSETS_BENCHMARK_WAKEUPS"
"""The environment variable that asks for others than the database's own."""

# Figures


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    what: str
    database: str
    value: str
    target: str = ""
    met: bool | None = None
    """None where there is no target."""


def table(figures: Iterable[Figure]) -> str:
    """The figures in Markdown."""
    verdicts = {None: "", True: "met", False: "**missed**"}
    lines = ["| What | Database | Measured | Target | |", "|---|---|---|---|---|"]
    lines += [
        f"| {f.what} | {f.database} | {f.value} | {f.target} | {verdicts[f.met]} |" for f in figures
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    """Tell whoever watches; what is measured goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def rest() -> None:
    """Leave the machine idle for a moment; not always to the same moment of somebody's interval."""
    time.sleep(random.uniform(0.01, 0.03))


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent of the values do not exceed."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and between which values it lies."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


# Running


Measure = Callable[[str, int], Iterator[Figure]]
"""Given the title of the database and a number of rounds."""


def main(measure: Measure, *, rounds: int) -> None:
    """Measure on the database that is asked for, or on each that answers, one after the other."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--database", choices=services.DATABASES, help="on this one only")
    parser.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.json:
        kinds = [options.database] if options.database else list(services.DATABASES)
        script = Path(sys.argv[0]).resolve()
        print(table(f for kind in kinds for f in figures_of(script, kind, options.rounds)))
        return
    with scratch_database(options.database):
        for figure in measure(services.DATABASES[options.database].title, options.rounds):
            print(json.dumps(asdict(figure)), flush=True)


def figures_of(script: Path, kind: str, rounds: int | None = None) -> Iterator[Figure]:
    """What the script measures on one kind of database."""
    absent = services.DATABASES[kind].absent()
    if absent:
        yield Figure(script.stem, services.DATABASES[kind].title, f"not run: {absent}")
        return
    say(f"== {script.stem}, {services.DATABASES[kind].title}")
    command = [sys.executable, str(script), "--database", kind, "--json"]
    if rounds is not None:
        command += ["--rounds", str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        yield Figure(**json.loads(line))
    if done.returncode != 0:
        title = services.DATABASES[kind].title
        yield Figure(script.stem, title, f"ended with exit code {done.returncode}", "", met=False)


# Databases


@contextmanager
def scratch_database(kind: str) -> Iterator[None]:
    """A migrated database of that kind as the default one of this process and its children."""
    os.environ[services.DATABASE] = kind
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.benchmarks.settings"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with new_database(kind) as name:
        os.environ[services.DATABASE_NAME] = name

        import django
        from django.core.management import call_command
        from django.db import connections

        django.setup()
        call_command("migrate", verbosity=0)
        yield
        connections.close_all()


@contextmanager
def copied_database() -> Iterator[str]:
    """Another database with the tables of the default one: the name of its file, or its name."""
    with new_database(os.environ[services.DATABASE], "_copy") as name:
        command = [sys.executable, "-m", "django", "migrate", "--verbosity=0"]
        subprocess.run(command, env=os.environ | {services.DATABASE_NAME: name}, check=True)
        yield name


@contextmanager
def new_database(kind: str, suffix: str = "") -> Iterator[str]:
    """A new database of that kind: the name of its file, or its name."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="tasksets-benchmark-") as directory:
            yield str(Path(directory, "database.sqlite3"))
        return
    name = f"tasksets_benchmark_{os.getpid()}{suffix}"
    _on_server(kind, f"CREATE DATABASE {name}")
    try:
        yield name
    finally:
        _on_server(kind, f"DROP DATABASE {name}{' WITH (FORCE)' if kind == 'postgresql' else ''}")


def _on_server(kind: str, statement: str) -> None:
    if kind == "postgresql":
        import psycopg

        with psycopg.connect(postgresql_address("postgres"), autocommit=True) as session:
            session.execute(statement.encode())
        return

    import MySQLdb

    session = MySQLdb.connect(**mysql_address())
    session.query(statement)
    session.close()


def postgresql_address(database: str) -> str:
    """How to connect to a database of PostgreSQL."""
    from psycopg.conninfo import make_conninfo

    server = services.DATABASES["postgresql"].server or {}
    words = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
    return make_conninfo(
        dbname=database, **{words[key]: value for key, value in server.items() if value}
    )


def mysql_address() -> dict[str, Any]:
    """How to connect to the server of MySQL or MariaDB."""
    server = services.DATABASES["mysql"].server or {}
    return {
        "host": server["HOST"],
        "port": int(server["PORT"]),
        "user": server["USER"],
        "passwd": server["PASSWORD"],
    }


def empty_sets() -> None:
    """Drop all sets and subtasks, so that each round begins with tables like the first."""
    from django.core.management.color import no_style
    from django.db import connection

    from django_tasksets.models import (
        ErrorGroupRecord,
        ProgressSample,
        SubtaskRecord,
        TaskSetRecord,
    )

    models = (ErrorGroupRecord, ProgressSample, SubtaskRecord, TaskSetRecord)
    names = [model._meta.db_table for model in models]
    connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), names))


def size_on_disk(table: str) -> int:
    """Of a table with its indexes, in bytes; on SQLite, of the file and its log."""
    from django.db import connection

    if connection.vendor == "sqlite":
        name = Path(connection.settings_dict["NAME"])
        return sum(path.stat().st_size for path in name.parent.glob(f"{name.name}*"))
    statements = {
        "postgresql": "SELECT pg_total_relation_size(%s)",
        "mysql": "SELECT data_length + index_length FROM information_schema.tables "
        "WHERE table_schema = database() AND table_name = %s",
    }
    with connection.cursor() as cursor:
        cursor.execute(statements[connection.vendor], [table])
        return int(cursor.fetchone()[0])


# Workers


@contextmanager
def worker(*arguments: str, processes: int = os.cpu_count() or 1) -> Iterator[int]:
    """A real worker, by default with its default options, up and idle; yields its supervisor's
    process id."""
    from django_tasksets.models import WorkerRecord

    from . import tasks

    command = [sys.executable, "-m", "django", "runtaskworker", "--verbosity=0", *arguments]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_until(lambda: WorkerRecord.objects.count() >= processes)
        for _ in range(20):
            tasks.add.delay(1, 1).get(timeout=30)
        time.sleep(1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def wait_until(look: Callable[[], T], *, timeout: float = 300, pause: float = 0.02) -> T:
    """What `look` returns once that is true."""
    deadline = time.monotonic() + timeout
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(pause)
    return seen


def descendants(pid: int) -> list[int]:
    """The process and all that it started, and they; as Linux tells it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in descendants(int(child)))]


def cpu_seconds(pids: Iterable[int]) -> float:
    """The time on a core that the processes have taken so far."""
    ticks = 0
    for pid in pids:
        # After the program's name, which may hold anything but ends at the last parenthesis.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
