"""Workers as a test sees them: processes, what they log, and what their tasks wrote down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from django_tasksets.models import SubtaskRecord, WorkerRecord

LIMIT = 30


def wait_for(condition: Callable[[], Any], what: str, limit: float = LIMIT) -> Any:
    """Wait until it is true; returns what it says then."""
    deadline = time.monotonic() + limit
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"still waiting: {what}"
        time.sleep(0.02)
    return answer


def status(key: Any) -> str:
    """The status of the subtask with that id, or handle."""
    row = SubtaskRecord.objects.filter(id=getattr(key, "id", key))
    return str(row.values_list("status", flat=True).get())


class Files:
    """A ledger that tasks write to, and a gate that they wait for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ledger = directory / "ledger"
        self._gate = directory / "gate"

    @property
    def ledger(self) -> str:
        return str(self._ledger)

    @property
    def gate(self) -> str:
        return str(self._gate)

    def open_gate(self) -> None:
        self._gate.touch()

    def lines(self, *beginning: str) -> list[str]:
        """The ledger's lines that begin with these words."""
        if not self._ledger.exists():
            return []
        lines = self._ledger.read_text().splitlines()
        return [line for line in lines if line.split()[: len(beginning)] == list(beginning)]

    def wait_for(self, *beginning: str, count: int = 1) -> list[str]:
        """Wait until the ledger has so many lines that begin with these words."""

        def enough() -> list[str]:
            lines = self.lines(*beginning)
            return lines if len(lines) >= count else []

        found: list[str] = wait_for(enough, f"{count} lines of {beginning}")
        return found


class Running:
    """One `runtaskworker`, in a process group of its own."""

    def __init__(
        self, arguments: tuple[str, ...], environment: Mapping[str, str], log: Path
    ) -> None:
        self._log = log
        command = [sys.executable, "-m", "django", "runtaskworker", *arguments]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self.pid = self.process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for_log(self, text: str) -> None:
        wait_for(lambda: text in self.log, f"{text!r} in the log")

    def wait(self, limit: float = LIMIT) -> int:
        """Its exit code."""
        return self.process.wait(limit)

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(text) for text in found.read_text().split()]

    def workers(self) -> list[int]:
        """The pids of its worker processes that are registered."""
        pids = WorkerRecord.objects.filter(lost_at=None).values_list("pid", flat=True)
        return [pid for pid in self.children() if pid in set(pids)]

    @property
    def is_empty(self) -> bool:
        """No process of it is left."""
        self.process.poll()
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def kill(self) -> None:
        """Whatever is left of it."""
        if not self.is_empty:
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(LIMIT)


class Start:
    """Starts workers."""

    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        self._environment = environment
        self._directory = directory
        self._started: list[Running] = []

    def __call__(
        self,
        *arguments: str,
        settings: Mapping[str, Any] | None = None,
        apps: str = "tests.processes.extra",
        environment: Mapping[str, str] | None = None,
        path: str = "",
        reload: bool = False,
    ) -> Running:
        variables = {
            **self._environment,
            "PYTHONPATH": os.pathsep.join([self._environment["PYTHONPATH"], path]),
            "TASKSETS_TEST_APPS": apps,
            "TASKSETS_TEST_SETTINGS": json.dumps(settings or {}),
            **(environment or {}),
        }
        if not any(one.startswith("--processes") for one in arguments):
            arguments = ("--processes=1", *arguments)
        if not reload:
            arguments = ("--no-reload", *arguments)
        log = self._directory / f"worker-{len(self._started)}.log"
        running = Running(arguments, variables, log)
        self._started.append(running)
        return running

    def ready(self, *arguments: str, **options: Any) -> Running:
        """Start one, and wait until all its processes are registered."""
        running = self(*arguments, **options)
        count = next((one for one in arguments if one.startswith("--processes=")), "=1")
        wait_for(lambda: len(running.workers()) == int(count.split("=")[1]), "it registers")
        return running

    def end_all(self) -> None:
        """End them in order, and show what they have logged."""
        try:
            for running in self._started:
                if running.process.poll() is None:
                    running.process.send_signal(signal.SIGQUIT)
            for running in self._started:
                running.process.wait(LIMIT)
            wait_for(lambda: all(one.is_empty for one in self._started), "no process is left")
        finally:
            for running in self._started:
                running.kill()
                sys.stdout.write(running.log)
