"""Real workers: started, watched, signalled, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from django_tasksets import AsyncResult
from django_tasksets.models import SubtaskRecord, WorkerRecord

LIMIT = 60


def wait_until(condition: Callable[[], Any], what: str, limit: float = LIMIT) -> Any:
    """Wait for something to be true; returns it."""
    until = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > until:
            pytest.fail(f"Waited {limit} s for: {what}")
        time.sleep(0.02)
    return found


def row(result: AsyncResult[Any]) -> SubtaskRecord:
    """The subtask's row as it is now."""
    return SubtaskRecord.objects.get(id=result.id)


class Ledger:
    """What tasks have written, and the files that tell them to go on."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def lines(self, *begin: object) -> list[list[str]]:
        """The lines that begin with these words, as words."""
        file = self.directory / "ledger"
        rows = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        words = [str(word) for word in begin]
        return [row for row in rows if row[: len(words)] == words]

    def wait_for(self, *begin: object, count: int = 1) -> list[list[str]]:
        """Wait for so many lines that begin with these words."""
        wait_until(lambda: len(self.lines(*begin)) >= count, f"{count} times {begin}")
        return self.lines(*begin)

    def tell(self, *names: str) -> None:
        """Let tasks go on."""
        for name in names:
            (self.directory / name).touch()


class Worker:
    """A `runtaskworker` in a process group of its own."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
        self._log = log
        command = [sys.executable, "-m", "django", "runtaskworker", *arguments]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        self.pid = self.process.pid
        self.fails = False
        """Errors in its log are part of the test."""

    @property
    def log(self) -> str:
        return self._log.read_text()

    def signal(self, number: int, pid: int | None = None) -> None:
        os.kill(self.pid if pid is None else pid, number)

    def wait(self, limit: float = LIMIT) -> int:
        """Wait for its end; returns the exit code."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            pytest.fail(f"Still running after {limit} s:\n{self.log}")

    def stop(self) -> int:
        # While it is loading the project, nobody handles signals yet.
        wait_until(lambda: self.process.poll() is not None or self.children(), "its first child")
        self.signal(signal.SIGTERM)
        return self.wait()

    def children(self) -> set[int]:
        return set(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))

    def executing(self) -> set[int]:
        """The processes that execute subtasks and have registered."""
        return self.children() & set(WorkerRecord.objects.values_list("pid", flat=True))

    def wait_for_processes(self, count: int = 1) -> set[int]:
        found: set[int] = wait_until(
            lambda: len(pids := self.executing()) == count and pids, f"{count} processes"
        )
        return found

    def heart(self) -> int:
        """The one child that does not execute subtasks; all others must be there."""
        (pid,) = self.children() - self.executing()
        return pid

    def end(self) -> None:
        """Leave nothing of it, whatever state it is in."""
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def family(self) -> set[int]:
        """All processes that it has started, and they, and so on: those of its session."""
        found: set[int] = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # It has just ended.
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
                if session == str(self.pid) and state != "Z":
                    found.add(int(stat.parent.name))
        return found


class Start(Protocol):
    def __call__(
        self, *arguments: str, settings: dict[str, Any] | None = None, **environment: str
    ) -> Worker: ...
