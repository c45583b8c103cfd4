"""Removes each guard of the protocol in turn, and asks whether a test fails for it.

`python3 tests --mutants` makes what this needs, and runs it. In a copy of the tree, each mutant is
one edit; the few tests that ought to notice are run, and one of them must fail. Before that all of
them must pass. Exit code 0 says that no mutant has survived.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests import services

from .flow import FLOW
from .mutant import PACKAGE, Mutant
from .stores import STORES
from .upkeep import UPKEEP
from .workers import WORKERS

ROOT: Final = Path(__file__).resolve().parents[2]
MUTANTS: Final = (*STORES, *FLOW, *UPKEEP, *WORKERS)
COPIED: Final = (PACKAGE, "testproject", "tests", "pyproject.toml")
# In seconds. A mutant may hang: that is a failure of the test that hangs.
TEST_LIMIT: Final = 40
LIMIT: Final = 300
BASELINE_LIMIT: Final = 1200
# pytest's exit codes.
PASSED, FAILED = 0, 1
# One that is broken is no mutant: it fails whatever is tested. If it cannot be imported, it ends
# here, without a report.
BROKEN: Final = ("ImportError", "ModuleNotFoundError", "NameError", "SyntaxError")
IMPORT: Final = """
import django
django.setup()
import {name} as mutant
assert mutant.__file__.startswith(__import__("os").getcwd()), mutant.__file__
"""
PYTEST: Final = """
import sys, pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Failure:
    """A test that failed."""

    test: str
    message: str


@dataclass(frozen=True)
class Run:
    """What pytest said of a selection of tests."""

    code: int | None
    """None if it did not end in time."""
    failures: tuple[Failure, ...]
    seconds: float
    output: str

    @property
    def killer(self) -> Failure | None:
        """The test that failed first, if that is all that went wrong."""
        if self.code != FAILED or not self.failures:
            return None
        first = self.failures[0]
        return None if first.message.startswith(BROKEN) else first


class Tree:
    """A copy of what the tests need, in which guards are removed and put back."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", ".*")
                shutil.copytree(source, root / name, ignore=ignored)
            else:
                shutil.copy(source, root / name)

    def read(self, mutant: Mutant) -> str:
        return (self.root / mutant.path).read_text()

    @contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """With the guard removed."""
        text = self.read(mutant)
        self._write(mutant, mutant.applied(text))
        try:
            yield
        finally:
            self._write(mutant, text)

    def _write(self, mutant: Mutant, text: str) -> None:
        path = self.root / mutant.path
        path.write_text(text)
        # What is compiled knows its source by second and size, which may both be the same.
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)

    def environment(self, database: str) -> dict[str, str]:
        # Before what the environment itself says of where the package is.
        path = os.pathsep.join([str(self.root), str(self.root / "testproject")])
        return os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "PYTHONPATH": path,
            services.DATABASE: database,
        }

    def test(self, database: str, selection: Sequence[str], mutant: Mutant | None = None) -> Run:
        """Run the tests; of a mutant, up to the first that fails."""
        report = self.root / "report.xml"
        report.unlink(missing_ok=True)
        program, limit = "", BASELINE_LIMIT
        if mutant is not None:
            program, limit = IMPORT.format(name=mutant.import_name), LIMIT
        command = [sys.executable, "-c", program + PYTEST, *selection]
        command += ["-q", f"--junit-xml={report}", f"--timeout={TEST_LIMIT}"]
        command += ["--exitfirst"] if mutant is not None else []
        began = time.monotonic()
        code, output = _call(command, self.root, self.environment(database), limit)
        return Run(code, tuple(_failures(report)), time.monotonic() - began, output)


def _call(
    command: list[str], directory: Path, environment: dict[str, str], limit: int
) -> tuple[int | None, str]:
    """The exit code, None if that took too long, and what was printed."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        code: int | None = None
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return code, output.read()


def _failures(report: Path) -> Iterator[Failure]:
    """The tests that failed, not those that could not even be set up."""
    if not report.exists():
        return
    for case in ET.parse(report).getroot().iter("testcase"):
        failure = case.find("failure")
        if failure is not None:
            place = case.attrib["classname"].removeprefix("tests.")
            yield Failure(f"{place}::{case.attrib['name']}", failure.attrib["message"])


# All of them


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python3 tests --mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only mutants with one of these in their names")
    parser.add_argument("--database", action="append", choices=services.DATABASES)
    options = parser.parse_args(arguments)
    databases = options.database or [
        name for name, kind in services.DATABASES.items() if not kind.absent()
    ]
    chosen = [
        mutant
        for mutant in MUTANTS
        if not options.names or any(name in mutant.name for name in options.names)
    ]
    with tempfile.TemporaryDirectory(prefix="tasksets-mutants-") as directory:
        tree = Tree(Path(directory).resolve())
        # Before anything runs: what does not fit any more is to be looked at.
        for mutant in chosen:
            mutant.applied(tree.read(mutant))
        return _all(tree, chosen, databases)


def _all(tree: Tree, chosen: Sequence[Mutant], databases: Sequence[str]) -> int:
    survivors = tried = 0
    for database in databases:
        mutants = [mutant for mutant in chosen if database in mutant.databases]
        if mutants and not _passes(tree, mutants, database):
            return 1
        for mutant in mutants:
            tried += 1
            survivors += not _is_killed(tree, mutant, database)
    print(f"\n{tried} mutants, {survivors} survived", flush=True)
    return 1 if survivors or not tried else 0


def _passes(tree: Tree, mutants: Sequence[Mutant], database: str) -> bool:
    """Whether all tests that are to fail for something pass without it."""
    selection = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    run = tree.test(database, selection)
    passes = run.code == PASSED
    title = services.DATABASES[database].title
    print(f"\n== {title}: without mutants {'passes' if passes else 'FAILS'}, {run.seconds:.0f} s\n")
    if not passes:
        print(run.output)
    return passes


def _is_killed(tree: Tree, mutant: Mutant, database: str) -> bool:
    with tree.mutated(mutant):
        run = tree.test(database, mutant.tests, mutant)
    title, killer = services.DATABASES[database].title, run.killer
    print(f"{title:10} {mutant.name:30} {run.seconds:5.1f} s  removed: {mutant.removes}")
    if killer is not None:
        print(f"{'':11}killed by {killer.test}", f"{killer.message:.100}".splitlines()[0], sep=": ")
    else:
        print(f"{'':11}SURVIVED, exit code {run.code}\n{run.output[-3000:]}")
    sys.stdout.flush()
    return killer is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
