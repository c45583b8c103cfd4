"""Makes the environments that the demo and the tests run in, with nothing but Python and pip.

An environment is a directory `.venv-...` in the repository's root, thrown away at will. It holds
what pyproject.toml asks for, and a .pth file that leads to the repository and to testproject/, so
that the package and the demo are imported from their sources. What was installed is written into
it: the next start reads that, compares, and goes on at once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OLDEST_PIP = (22, 3)
"""The first one that knows --python."""


class SetupError(Exception):
    """An environment cannot be made here; says what to do about it."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that environments can be made from."""

    executable: str
    version: tuple[int, ...]

    @classmethod
    def running(cls) -> Interpreter:
        """The one that executes this."""
        return cls(sys.executable, tuple(sys.version_info[:3]))

    @property
    def name(self) -> str:
        """Its version, as people write it."""
        return ".".join(map(str, self.version))

    @property
    def short(self) -> str:
        """Its version up to the minor one."""
        return ".".join(map(str, self.version[:2]))


@dataclass(frozen=True)
class Environment:
    """A virtual environment in the repository's root."""

    purpose: str
    interpreter: Interpreter

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return ROOT / f".venv-{self.purpose}-{self.interpreter.short}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        if os.name == "nt":
            return self.directory / "Scripts" / "python.exe"
        return self.directory / "bin" / "python"

    def ensure(self, requirements: Iterable[str]) -> None:
        """Make it, and install what it lacks. Returns at once when nothing is lacking."""
        wanted = set(requirements)
        if self._has(wanted):
            return
        with _alone():
            if self._has(wanted):  # Another process was at it.
                return
            started = time.monotonic()
            new = self._installed() is None
            say(
                f"Making an environment in {self.directory.name}/ (this happens once) ..."
                if new
                else f"Bringing {self.directory.name}/ up to date ..."
            )
            say(f"Installing {', '.join(sorted(_names(wanted)))} ...")
            self._provide(sorted(wanted), new=new)
            self._note(wanted)
            say(f"The environment is ready, after {time.monotonic() - started:.1f} seconds.")

    # What is in it

    @property
    def _stamp(self) -> Path:
        return self.directory / "tasksets-installed.txt"

    def _origin(self) -> str:
        return f"{ROOT} on Python {self.interpreter.name}"

    def _installed(self) -> set[str] | None:
        """The requirements that it has; None if it has to be made anew."""
        try:
            origin, *requirements = self._stamp.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return None
        if origin != self._origin() or not self.python.exists():
            return None
        return set(requirements)

    def _has(self, wanted: set[str]) -> bool:
        installed = self._installed()
        return installed is not None and wanted <= installed

    def _note(self, wanted: set[str]) -> None:
        lines = [self._origin(), *sorted(wanted | (self._installed() or set()))]
        self._stamp.write_text("\n".join(lines) + "\n", encoding="utf-8")

    # Making it

    def _provide(self, requirements: Sequence[str], *, new: bool) -> None:
        """By uv where it is, as it is the faster one; by pip where it is not, or fails."""
        if uv := shutil.which("uv"):
            try:
                self._by_uv(uv, requirements, new=new)
            except SetupError:
                say("uv could not do it; trying pip ...")
            else:
                return
        self._by_pip(requirements, new=new)

    def _by_uv(self, uv: str, requirements: Sequence[str], *, new: bool) -> None:
        if new:
            self._clear()
            _run(uv, "venv", "--quiet", "--python", self.interpreter.executable, self.directory)
            self._lead_to_repository()
        _run(uv, "pip", "install", "--quiet", "--python", self.python, *requirements)

    def _by_pip(self, requirements: Sequence[str], *, new: bool) -> None:
        base = self.interpreter.executable
        # A pip of its own costs seconds, and on Debian another package.
        borrows = _pip_version(base) >= OLDEST_PIP
        if new:
            self._clear()
            options: list[str] = ["--without-pip"] if borrows else []
            _run(base, "-m", "venv", *options, self.directory)
            self._lead_to_repository()
        pip: list[str | Path] = [self.python, "-m", "pip"]
        if borrows:
            pip = [base, "-m", "pip", "--python", self.python]
        _run(*pip, "--quiet", "--no-input", "--disable-pip-version-check", "install", *requirements)

    def _clear(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def _lead_to_repository(self) -> None:
        """What an editable installation does, without a build."""
        ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site_packages = Path(_run(self.python, "-c", ask).strip())
        lead = site_packages / "tasksets-repository.pth"
        lead.write_text(f"{ROOT}\n{HERE}\n", encoding="utf-8")


def requirements(*, extras: Sequence[str] = (), groups: Sequence[str] = ()) -> list[str]:
    """What pyproject.toml asks for: the package's own dependencies, and those of these names.

    Read here because a pip before 25.1 knows no --group.
    """
    with (ROOT / "pyproject.toml").open("rb") as file:
        pyproject: dict[str, Any] = tomllib.load(file)
    project = pyproject["project"]
    found = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    for group in groups:
        found += pyproject["dependency-groups"][group]
    return found


def enter(purpose: str, *, extras: Sequence[str] = ()) -> None:
    """Go on in the environment for `purpose`, made first if need be.

    Returns when this process already runs in it; otherwise this very command starts again there.
    """
    environment = Environment(purpose, Interpreter.running())
    if Path(sys.prefix).resolve() == environment.directory.resolve():
        return
    try:
        environment.ensure(requirements(extras=extras))
    except SetupError as error:
        sys.exit(f"{error}")
    _start_again(environment.python)


def say(text: str) -> None:
    """Tell the person at the terminal, in order with what child processes print."""
    print(text, flush=True)


def _start_again(python: Path) -> NoReturn:
    # sys.orig_argv[0] is the interpreter; its own options and the script follow.
    command = [str(python), *sys.orig_argv[1:]]
    if os.name == "nt":  # There exec does not wait for the new process.
        sys.exit(subprocess.call(command))
    os.execv(python, command)  # noqa: S606  no shell is meant


def _names(requirements: Iterable[str]) -> set[str]:
    """Project names, for people to read."""
    return {line.split(">")[0].split("~")[0].split("=")[0].strip() for line in requirements}


def _pip_version(python: str | Path) -> tuple[int, ...]:
    """The version of that interpreter's pip; () without one."""
    ask = "import importlib.metadata as m; print(m.version('pip'))"
    try:
        major, minor = _run(python, "-c", ask).strip().split(".")[:2]
        return int(major), int(minor)
    except (SetupError, ValueError):
        return ()


def _run(*command: str | Path) -> str:
    """Run it and return what it printed; SetupError with all that it said if it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise SetupError(f"{command[0]} cannot be started: {error}") from error
    if done.returncode != 0:
        raise SetupError(
            f"This command failed:\n    {' '.join(map(str, command))}\n"
            f"{(done.stdout + done.stderr).strip()}\n"
            "Installing needs pip or uv, and a way to the package index. Debian and Ubuntu have "
            "pip in the packages python3-pip and python3-venv."
        )
    return done.stdout


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One process at a time makes environments in this repository; others wait here."""
    try:
        import fcntl
    except ImportError:  # Windows; two first starts at once are not worth more code.
        yield
        return
    root = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(root, fcntl.LOCK_EX)
        yield
    finally:
        os.close(root)
