"""Runs one contender once, in a process of its own, and reads what it prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from typing import IO

from tests import services
from tests.benchmarks.floor import Timing
from tests.benchmarks.lab import ROOT
from tests.benchmarks.peers.contenders import Contender
from tests.benchmarks.peers.contest import TIMEOUT
from tests.benchmarks.peers.environments import NoEnvironment, command
from tests.benchmarks.peers.places import NoPlace, place


class NotRun(Exception):
    """Why there is no figure."""


def run(contender: Contender, count: int) -> Timing:
    """How long so many calls take."""
    if contender.kind and (absent := services.DATABASES[contender.kind].absent()):
        raise NotRun(absent)
    try:
        start = [*command(contender.runs_on, contender.script), str(count), *contender.arguments]
        with place(contender.needs) as variables:
            if contender.kind:
                variables[services.DATABASE] = contender.kind
            return Timing(**json.loads(_output(start, os.environ | variables)))
    except (NoEnvironment, NoPlace) as reason:
        raise NotRun(str(reason)) from reason


def _output(start: list[str], variables: dict[str, str]) -> str:
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            start,
            cwd=ROOT,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=2 * TIMEOUT)
        except subprocess.TimeoutExpired:
            raise NotRun("it did not end in time") from None
        finally:
            _end(process)
        if process.returncode != 0:
            raise NotRun(f"it failed: {_last_line(errors)}")
        return output


def _end(process: subprocess.Popen[str]) -> None:
    """End it, if it has not ended, with a moment to clean up; then what it has left running."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(40)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(errors: IO[str]) -> str:
    errors.seek(0)
    lines = [line.strip() for line in errors if line.strip()]
    return lines[-1] if lines else "without a word"
