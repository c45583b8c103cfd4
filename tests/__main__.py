"""The suite, with nothing but Python: what it needs is installed beside it.

`python3 tests`: the checks (style, types, layers, docs), then all tests on every database that
answers, then a table of what ran. `python3 tests ARGUMENTS`: the tests that pytest selects by them.
`python3 tests --mutants`: whether some test fails for each guard of the protocol that is removed.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit(f"django-tasksets needs Python 3.11 or newer; this is {sys.version.split()[0]}.")

ROOT = Path(__file__).resolve().parent.parent
# Not tests/ itself, which Python put there: its modules are in the package `tests`.
sys.path[0:1] = [str(ROOT), str(ROOT / "testproject")]

import argparse
import os
import shutil
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bootstrap import Environment, Interpreter, SetupError, requirements, say
from tests import services
from tests.chaos import scale, table
from tests.chaos.server import ServerError, own

ALONE = "serial or processes or browser"
BESIDE = ["-n", "2", "-m", f"not ({ALONE} or chaos or benchmark)"]
"""Two test processes, each with a database of its own."""
CHAOS = "tests/chaos"
ONCE = ("tests/unit", "tests/docs", "tests/models")
"""Directories whose tests do not depend on the kind of database."""
NO_TESTS = 5
"""pytest's exit code when it found none."""


@dataclass(frozen=True)
class Pair:
    """A Django, and the Python to run it on."""

    name: str
    django: str
    interpreter: Interpreter
    groups: tuple[str, ...] = ("test",)

    def environment(self, *groups: str) -> Environment:
        """Its environment, with these dependency groups besides its own."""
        # Types are checked against these two.
        extras = ["postgres", "redis"]
        environment = Environment(f"tests-{self.name}", self.interpreter)
        environment.ensure(
            [self.django, *requirements(extras=extras, groups=[*self.groups, *groups])]
        )
        return environment


@dataclass(frozen=True)
class Row:
    """One line of the table at the end."""

    pair: str
    what: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    note: str = ""


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments ask for; 0 if nothing failed."""
    options, selection = _parse(arguments)
    os.chdir(ROOT)
    rows: list[Row] = []
    try:
        rows.extend(_run(options, selection))
    except SetupError as error:
        say(f"{error}")
        rows.append(Row("", "setting up", failed=1, note="see above"))
    return _conclude(rows)


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        "python3 tests",
        description=__doc__,
        epilog="All other arguments are pytest's; with --mutants, parts of the names of mutants.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    chosen = os.environ.get(services.DATABASE)
    parser.add_argument(
        "--pairs",
        action="store_true",
        default=services.under_ci(),
        help="on the oldest and the newest Django; so under CI",
    )
    parser.add_argument(
        "--database",
        action="append",
        choices=services.DATABASES,
        help="on this database only; may be given again",
    )
    parser.add_argument("--checks", action="store_true", help="the checks only")
    parser.add_argument(
        "--chaos", action="store_true", help="the experiments of tests/chaos only, at full size"
    )
    parser.add_argument(
        "--mutants", action="store_true", help="whether a test fails for each guard removed"
    )
    parser.add_argument(
        "--minutes", type=float, help="with --chaos: begin none after so many, on each database"
    )
    options, selection = parser.parse_known_args(arguments)
    options.database = options.database or ([chosen] if chosen else list(services.DATABASES))
    return options, selection


def _run(options: argparse.Namespace, selection: list[str]) -> Iterator[Row]:
    """All parts, one after the other, each with what came of it."""
    pairs = _pairs()
    if options.chaos:
        yield from _chaos_in_full(pairs[0], options, selection)
        return
    if options.mutants:
        yield from _mutants(pairs[0], options.database, selection)
        return
    whole = not selection
    if whole:
        yield from _checks(pairs[0])
    if options.checks:
        return
    yield from _absent_services(options.database)
    chosen = pairs if options.pairs else pairs[:1]
    for number, pair in enumerate(chosen):
        yield from _tests(pair, options.database, selection, f"{number}/{len(chosen)}")
    if options.pairs and len(pairs) < 2:
        yield _not_run("Django 6 needs Python 3.12 or newer, and none is found here")


# Pythons and Djangos


def _pairs() -> list[Pair]:
    """The running Python with the newest Django that it takes, then the other end of the range."""
    running = Interpreter.running()
    newer = running if running.version >= (3, 12) else _newer_python()
    oldest = Pair("oldest", "django~=5.2.0", running, groups=("test", "backport"))
    newest = [Pair("newest", "django>=6", newer)] if newer else []
    return [*newest, oldest] if newer is running else [oldest, *newest]


def _newer_python() -> Interpreter | None:
    """The newest installed Python that takes Django 6."""
    pyenv = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    for minor in (14, 13, 12):
        candidates = [str(path) for path in Path(pyenv).glob(f"versions/3.{minor}.*/bin/python")]
        candidates += filter(None, [shutil.which(f"python3.{minor}")])
        found = [python for path in candidates if (python := _interpreter(path))]
        if found:
            return max(found, key=lambda python: python.version)
    return None


def _interpreter(path: str) -> Interpreter | None:
    """What that program says of itself; None if it does not start, as some shims do."""
    ask = "import sys; print(sys.executable, *sys.version_info[:3])"
    done = subprocess.run([path, "-c", ask], capture_output=True, text=True)
    if done.returncode != 0:
        return None
    executable, *version = done.stdout.rsplit(maxsplit=3)
    return Interpreter(executable, tuple(map(int, version)))


def _title(environment: Environment) -> str:
    ask = "import platform, django; print(platform.python_version(), django.__version__)"
    done = subprocess.run(
        [environment.python, "-c", ask], capture_output=True, text=True, check=True
    )
    python, django = done.stdout.split()
    return f"Python {python}, Django {django}"


# Checks


def _checks(pair: Pair) -> Iterator[Row]:
    environment = pair.environment("lint", "docs")
    lint_imports = "from importlinter.cli import lint_imports_command as main; main()"
    yield _check(environment, "ruff check", "-m", "ruff", "check")
    yield _check(environment, "ruff format", "-m", "ruff", "format", "--check")
    yield _check(environment, "layers", "-c", lint_imports, "--no-logo")
    yield _check(environment, "mypy", "-m", "mypy")
    sphinx = ["-m", "sphinx", "-W", "--keep-going", "-q", "docs", "docs/_build/html"]
    yield _check(environment, "docs", *sphinx)


def _check(environment: Environment, what: str, *command: str) -> Row:
    title = _title(environment)
    say(f"\n== {title}: {what}")
    variables = {services.DATABASE: "sqlite", services.DATABASE_NAME: ":memory:"}
    code, seconds = _call(environment, command, variables)
    return Row(title, what, passed=int(code == 0), failed=int(code != 0), seconds=seconds)


# Tests


def _absent_services(databases: Sequence[str]) -> Iterator[Row]:
    kinds = [services.DATABASES[name] for name in databases]
    absent = [*(kind.absent() for kind in kinds), services.redis_absent()]
    yield from (_not_run(reason) for reason in absent if reason)


def _not_run(reason: str) -> Row:
    """With nobody there to be told it is a failure."""
    return Row("", "not run", failed=int(services.under_ci()), note=reason)


def _tests(pair: Pair, databases: Sequence[str], selection: list[str], share: str) -> Iterator[Row]:
    environment = pair.environment()
    once = [directory for directory in ONCE if Path(directory).exists()]
    databases, missing = _usable(environment, databases)
    yield from missing
    if not selection:
        # A Django may see a change where another one sees none.
        command = ["-m", "django", "makemigrations", "--check", "--dry-run"]
        yield _check(environment, "migrations", *command)
        yield from _pytest(environment, "sqlite", "unit, docs, models", [*once, *BESIDE])
    for name in databases:
        if any(argument.startswith(CHAOS) for argument in selection):
            yield from _chaos(environment, name, "selected", selection, {})
        elif selection:
            yield from _pytest(environment, name, "selected", selection)
        else:
            rest = ["tests", *(f"--ignore={directory}" for directory in ONCE)]
            yield from _pytest(environment, name, "one at a time", [*rest, "-m", ALONE])
            yield from _pytest(environment, name, "two at a time", [*rest, *BESIDE])
            variables = {scale.SHARE: share}
            yield from _chaos(environment, name, "chaos, a selection", [CHAOS], variables)


def _mutants(pair: Pair, databases: Sequence[str], names: list[str]) -> Iterator[Row]:
    environment = pair.environment()
    databases, missing = _usable(environment, databases)
    yield from missing
    if databases:
        chosen = [f"--database={name}" for name in databases]
        code, seconds = _call(environment, ["-m", "tests.mutants", *names, *chosen])
        yield Row(_title(environment), "mutants", int(code == 0), int(code != 0), 0, seconds)


def _usable(environment: Environment, databases: Sequence[str]) -> tuple[list[str], list[Row]]:
    """Those databases that answer and have a driver, and rows about drivers that are missing."""
    usable: list[str] = []
    missing: list[Row] = []
    for name in databases:
        kind = services.DATABASES[name]
        if kind.absent():
            continue
        if reason := _driver_missing(environment, kind):
            missing.append(_not_run(reason))
        else:
            usable.append(name)
    return usable, missing


def _driver_missing(environment: Environment, kind: services.Database) -> str | None:
    """Why the database cannot be used although it answers, if so: some drivers are compiled."""
    if not kind.extra:
        return None
    try:
        environment.ensure(requirements(extras=[kind.extra]))
    except SetupError as error:
        say(f"{error}")
        return f"{kind.title} answers, but its driver cannot be installed; {kind.advice}"
    return None


def _chaos(
    environment: Environment,
    database: str,
    part: str,
    arguments: Sequence[str],
    variables: dict[str, str],
) -> Iterator[Row]:
    """Experiments, on a server of their own that they may break."""
    try:
        with own(database) as where:
            yield from _pytest(environment, database, part, arguments, variables | where)
    except ServerError as error:
        yield _not_run(f"{services.DATABASES[database].title}, chaos: {error}")


def _chaos_in_full(pair: Pair, options: argparse.Namespace, selection: list[str]) -> Iterator[Row]:
    """All of them at full size, on one database after the other; then the table of figures."""
    environment = pair.environment()
    variables = {scale.FULL: "1"}
    if options.minutes is not None:
        variables[scale.MINUTES] = str(options.minutes)
    for name in options.database:
        if reason := _driver_missing(environment, services.DATABASES[name]):
            yield _not_run(reason)
        else:
            arguments = selection or [CHAOS, "-v", "-s"]
            yield from _chaos(environment, name, "chaos", arguments, variables)
    say(f"\n{table.table()}")


def _pytest(
    environment: Environment,
    database: str,
    part: str,
    arguments: Sequence[str],
    variables: dict[str, str] | None = None,
) -> Iterator[Row]:
    title, what = _title(environment), f"{services.DATABASES[database].title}, {part}"
    say(f"\n== {title}: {what}")
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        command = ["-m", "pytest", *arguments, f"--junit-xml={report}"]
        variables = {services.DATABASE: database, **(variables or {})}
        code, seconds = _call(environment, command, variables)
        if code == NO_TESTS:
            return
        passed, failed, skipped = _counts(report)
        if scale.FULL in variables and report.exists():
            table.keep(report, services.DATABASES[database].title)
    if code != 0 and not failed:
        failed = 1  # It ended before, or after, its tests.
    yield Row(title, what, passed, failed, skipped, seconds)


def _counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests; nothing where pytest did not get to its end."""
    if not report.exists():
        return 0, 0, 0
    suite = ET.parse(report).getroot()[0]
    total, failures, errors, skipped = (
        int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")
    )
    return max(0, total - failures - errors - skipped), failures + errors, skipped


def _call(
    environment: Environment, command: Sequence[str], variables: dict[str, str] | None = None
) -> tuple[int, float]:
    """Run the environment's Python; its exit code and how long it took."""
    started = time.monotonic()
    done = subprocess.run(
        [environment.python, *command],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"} | (variables or {}),
        stderr=subprocess.STDOUT,  # Or a log that collects both would not end with the totals.
    )
    return done.returncode, time.monotonic() - started


# The end


def _conclude(rows: Sequence[Row]) -> int:
    passed, failed = sum(row.passed for row in rows), sum(row.failed for row in rows)
    wide = max((len(row.what) for row in rows), default=0)
    pair = None
    say(f"\n{'':{wide + 2}} passed  failed  skipped  seconds")
    for row in rows:
        if row.pair != pair and row.pair:
            say(row.pair)
        pair = row.pair
        counts = f"{row.passed:6}  {row.failed:6}  {row.skipped:7}  {row.seconds:7.1f}"
        say(f"  {row.what:{wide}} {row.note or counts}")
    say(f"\n{passed} passed, {failed} failed")
    if passed + failed == 0:
        return NO_TESTS
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
