"""A set of calls that do next to nothing, and its callback: us beside others, by turns.

In each round every contender runs once, one after the other; what is told is the median of all
rounds, and of the ratios within each round. Contenders that cannot run are named, and why.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.benchmarks import lab

HERE = Path(__file__).resolve().parent
ENVIRONMENT = lab.ROOT / ".venv-peers"
PYTHON = ENVIRONMENT / "bin" / "python"
NODE = ENVIRONMENT / "node"
# Slow ones get a smaller set: their rate hardly depends on its size.
FEW = 1000
OURS = "django-tasksets, PostgreSQL"


@dataclass
class Contender:
    """One that runs the work, as a process that is asked for it."""

    name: str
    command: list[str]
    is_slow: bool = False
    needs_database: bool = False
    rates: list[float] = field(default_factory=list)
    """Subtasks a second, one for each round."""
    submit_rates: list[float] = field(default_factory=list)
    absent: str = ""
    """Why it does not run."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Started and warmed up; or `absent` says why not."""
        environment = dict(os.environ)
        with ExitStack() as stack:
            if self.needs_database:
                name = stack.enter_context(lab.new_database("postgresql", f"_{id(self)}"))
                environment["PEERS_DATABASE"] = name
                environment["PEERS_POSTGRESQL"] = lab.postgresql_url(name)
            with subprocess.Popen(
                self.command,
                env=environment,
                cwd=lab.ROOT,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as self._process:
                if self._line() != "ready":
                    self.absent = f"ended with exit code {self._process.wait()}"
                yield
                with suppress(BrokenPipeError):
                    self._pipe(self._process.stdin).close()

    def run(self, count: int) -> None:
        """One round."""
        if self.absent:
            return
        count = FEW if self.is_slow else count
        stdin = self._pipe(self._process.stdin)
        stdin.write(f"{count}\n")
        stdin.flush()
        line = self._line()
        if not line:
            self.absent = f"ended with exit code {self._process.wait()}"
            return
        timing = json.loads(line)
        self.rates.append(count / timing["whole"])
        self.submit_rates.append(count / timing["enqueue"])
        lab.say(f"{self.name}: {self.rates[-1]:,.0f}/s")

    def _line(self) -> str:
        """What it says next in the protocol; others on its stdout may say something, too."""
        for line in self._pipe(self._process.stdout):
            if line.startswith(("ready", "{")):
                return line.strip()
        return ""

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def contenders() -> list[Contender]:
    """All of them, ours first."""
    ours = str(HERE / "ours.py")
    peer = [str(PYTHON), "-m"]
    celery, huey = (f"tests.benchmarks.peers.with_{name}" for name in ("celery", "huey"))
    return [
        Contender(OURS, [sys.executable, ours, "postgresql"]),
        Contender("django-tasksets, SQLite", [sys.executable, ours, "sqlite"]),
        Contender("django-tasksets, MariaDB", [sys.executable, ours, "mysql"]),
        Contender("the floor, PostgreSQL", [sys.executable, ours, "postgresql", "floor"]),
        Contender("Celery's chord, results in Redis", [*peer, celery, "redis"], True),
        Contender(
            "Celery's chord, results in the ORM, PostgreSQL",
            [*peer, celery, "orm"],
            is_slow=True,
            needs_database=True,
        ),
        Contender("huey's chord, Redis", [*peer, huey], True),
        Contender("BullMQ's flow, Redis", ["node", str(NODE / "bullmq.js")]),
        Contender(
            "graphile-worker, counted by hand, PostgreSQL",
            ["node", str(NODE / "graphile.js"), "counted"],
            needs_database=True,
        ),
        Contender(
            "graphile-worker, bare: no results, no counting, no callback",
            ["node", str(NODE / "graphile.js"), "bare"],
            needs_database=True,
        ),
    ]


def install() -> None:
    """Make the peers' environments, once."""
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--requirement"]
        subprocess.run([*pip, str(HERE / "requirements.txt")], check=True)
    NODE.mkdir(exist_ok=True)
    for name in ("package.json", "contender.js", "bullmq.js", "graphile.js"):
        NODE.joinpath(name).write_text(HERE.joinpath(name).read_text())
    if not NODE.joinpath("node_modules").exists():
        npm = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        subprocess.run(npm, cwd=NODE, check=False)


def table(found: list[Contender]) -> str:
    """The rates in Markdown, with ours on PostgreSQL as so many times theirs."""
    lines = ["| | subtasks a second | enqueued a second | ours, PostgreSQL |", "|---|---|---|---|"]
    ours = found[0].rates
    for one in found:
        if one.absent:
            lines.append(f"| {one.name} | not run: {one.absent} | | |")
            continue
        ratios = [mine / its for mine, its in zip(ours, one.rates, strict=True)]
        low, middle, high = min(one.rates), statistics.median(one.rates), max(one.rates)
        enqueued = statistics.median(one.submit_rates)
        ratio = "" if one.name == OURS else f"{statistics.median(ratios):.2f} ×"
        lines.append(
            f"| {one.name} | {middle:,.0f} ({low:,.0f}–{high:,.0f}) | {enqueued:,.0f} | {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--count", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--only", default="", help="those whose names have this in them")
    options = parser.parse_args()
    install()
    found = [one for one in contenders() if options.only in one.name or one.name == OURS]
    with ExitStack() as stack:
        for one in found:
            lab.say(f"== {one.name}")
            stack.enter_context(one.running())
        for number in range(options.rounds):
            lab.say(f"round {number + 1}")
            for one in found:
                one.run(options.count)
    print(table(found))


if __name__ == "__main__":
    main()
