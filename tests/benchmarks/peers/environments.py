"""What the peers run in, made when it is asked for and thrown away at will.

Python's in `.venv-peers-…/` in the repository's root, as that of the tests is; Node's in
`node_modules/` beside this file, from where Node looks for what a script here imports.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import bootstrap
from tests.benchmarks import lab

HERE = Path(__file__).resolve().parent


class NoEnvironment(Exception):
    """It cannot be made here."""


def command(runs_on: str, script: str) -> list[str]:
    """How to start that script in that environment."""
    if runs_on == "node":
        return [_node(), str(HERE / script)]
    python = sys.executable if runs_on == "here" else _peers()
    return [python, "-m", f"{__package__}.contest", script]


@cache
def _peers() -> str:
    """The Python that has the peers."""
    lines = (HERE / "requirements.txt").read_text().splitlines()
    environment = bootstrap.Environment("peers", bootstrap.Interpreter.running())
    try:
        with redirect_stdout(sys.stderr):  # The table is what goes to stdout.
            environment.ensure(line for line in lines if line and not line.startswith("#"))
    except bootstrap.SetupError as error:
        lab.say(str(error))
        raise NoEnvironment("its packages cannot be installed; see above") from error
    return str(environment.python)


@cache
def _node() -> str:
    """The Node that finds the peers."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NoEnvironment("there is no Node here, or no npm")
    wanted, installed = HERE / "package.json", HERE / "node_modules" / ".installed.json"
    if not installed.exists() or installed.read_bytes() != wanted.read_bytes():
        lab.say("Installing the peers in JavaScript (this happens once) ...")
        # What some build for speed is shipped prebuilt too, in packages of its own.
        options = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run([npm, "install", *options], cwd=HERE, stdout=sys.stderr)
        if done.returncode != 0:
            raise NoEnvironment("its packages cannot be installed; see above")
        shutil.copyfile(wanted, installed)
    return node
