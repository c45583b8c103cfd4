"""The processes of the demo: started together, and ended together on every way out."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PROJECT = Path(__file__).resolve().parent.parent
STATE = PROJECT / ".demo"
"""Where the settings put the database, and the logs lie beside it."""
GRACE = 10.0
"""Seconds that a process has to end by itself."""
LINES_SHOWN = 15


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class UnfitStateError(DemoError):
    """What an earlier run left behind may be of another version."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}\nThe logs are in {STATE}; delete it to begin anew.")


class Children:
    """Management commands that run beside this process, each with a log of its own."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            for process in self._processes.values():
                process.terminate()
            deadline = time.monotonic() + GRACE
            for process in self._processes.values():
                process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:  # Whatever it was, a second Ctrl-C too: leave nothing behind.
            for process in self._processes.values():
                _kill_group(process)

    def start(self, name: str, *arguments: str) -> None:
        """Run `manage.py` with these arguments; what it says goes to the log of that name."""
        with self.log(name).open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, str(PROJECT / "manage.py"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C at the terminal is for this process, which ends the others in order.
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        """Where that process writes."""
        return self._logs / f"{name}.log"

    def check(self) -> None:
        """Raise DemoError, with the end of its log, if one has died."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise DemoError(
                    f"The {name} ended by itself, with exit code {process.returncode}.\n"
                    f"{self.last_lines(name)}"
                )

    def last_lines(self, name: str) -> str:
        """What that process said last, and where it said more."""
        lines = self.log(name).read_text(errors="replace").splitlines()[-LINES_SHOWN:]
        return "\n".join([f"From {self.log(name)}:", *(f"    {line}" for line in lines)])


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process if it is still there, and whatever it may have left."""
    if os.name == "nt":
        process.kill()
    else:
        # A session of its own made it the leader of a group of the same number.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
