"""Database servers to be broken: each with a fresh data folder, on a free port.

Standard library only: `python3 tests` starts them, and the tests that it starts find them again
by an environment variable.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final

SERVER: Final = "TASKSETS_CHAOS_SERVER"
"""The environment variable that says which server may be broken, as JSON."""
LIMIT: Final = 60.0
# For good: they outlive whoever asked for them.
_started: Final[list[subprocess.Popen[bytes]]] = []


class ServerError(Exception):
    """It cannot be started here, and why."""


class ThrowAwayServer(ABC):
    """One server process, and the folder that is its own."""

    kind: ClassVar[str]
    user: ClassVar[str]
    """Who runs it where root may not."""
    variables: ClassVar[tuple[str, str]]
    """What tells its clients, and the suite, where it is: host and port."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory, self.port = directory, port

    def environment(self) -> dict[str, str]:
        """With these variables the suite works on this server, and knows that it may break it."""
        host, port = self.variables
        where = {"kind": self.kind, "directory": str(self.directory), "port": self.port}
        return {host: "127.0.0.1", port: str(self.port), SERVER: json.dumps(where)}

    @abstractmethod
    def create(self) -> None:
        """Fill the folder."""

    @abstractmethod
    def command(self) -> list[str]:
        """What starts it, in the foreground."""

    @abstractmethod
    def pid(self) -> int | None:
        """Its process, as it says itself."""

    def start(self) -> None:
        """Start it; returns once it answers."""
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                self.as_user(self.command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        _started.append(process)
        until = time.monotonic() + LIMIT
        while not self.answers():
            if process.poll() is not None or time.monotonic() > until:
                raise ServerError(f"{self.kind} does not start:\n{self.log()}")
            time.sleep(0.05)

    @abstractmethod
    def answers(self) -> bool:
        """Whether it takes connections."""

    def end(self, number: int) -> None:
        """Send it the signal, and wait for its end."""
        pid = self.pid()
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        until = time.monotonic() + LIMIT
        while _is_there(pid):
            if time.monotonic() > until:
                raise ServerError(f"{self.kind} does not end:\n{self.log()}")
            time.sleep(0.02)

    def crash(self) -> None:
        """End it without any good-bye; what it has committed it must find again."""
        self.end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order, and its clients with it."""
        self.end(signal.SIGTERM)

    def log(self) -> str:
        """The end of what it has written."""
        return (self.directory / "log").read_text(errors="replace")[-2000:]

    def as_user(self, command: list[str]) -> list[str]:
        return ["runuser", "-u", self.user, "--", *command] if os.geteuid() == 0 else command

    def own(self) -> None:
        """Give the folder to whom the server runs as."""
        if os.geteuid() == 0:
            shutil.chown(self.directory, self.user)

    def call(self, command: list[str]) -> None:
        done = subprocess.run(
            self.as_user(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/"
        )
        if done.returncode != 0:
            raise ServerError(f"{command[0]} fails:\n{done.stdout}{done.stderr}")


class PostgreSQLServer(ThrowAwayServer):
    kind = "postgresql"
    user = "postgres"
    variables = ("PGHOST", "PGPORT")

    def create(self) -> None:
        data = str(self.directory / "data")
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        self.call([_program("initdb"), f"--pgdata={data}", *options])

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "log_min_messages": "warning",
            "log_lock_waits": "on",
        }
        settings = [part for pair in options.items() for part in ("-c", "=".join(pair))]
        data = str(self.directory / "data")
        return [_program("postgres"), "-D", data, "-p", str(self.port), *settings]

    def pid(self) -> int | None:
        file = self.directory / "data" / "postmaster.pid"
        return int(file.read_text().split()[0]) if file.exists() else None

    def answers(self) -> bool:
        ask = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ask).returncode == 0

    def crash(self) -> None:
        # As its own documents say of an immediate shutdown: it recovers as after a crash. A killed
        # postmaster would leave processes behind, which keep the next one from starting.
        self.end(signal.SIGQUIT)

    def stop(self) -> None:
        self.end(signal.SIGINT)  # Fast: transactions are broken off, not waited for.


class MariaDBServer(ThrowAwayServer):
    kind = "mysql"
    user = "mysql"
    variables = ("MYSQL_HOST", "MYSQL_PORT")

    def create(self) -> None:
        options = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-log-bin"]
        install = _program("mariadb-install-db")
        self.call([install, "--no-defaults", f"--datadir={self.directory / 'data'}", *options])

    def command(self) -> list[str]:
        return [
            _program("mariadbd"),
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--max-connections=200",
            "--innodb-print-all-deadlocks=1",
        ]

    def pid(self) -> int | None:
        file = self.directory / "pid"
        return int(file.read_text()) if file.exists() else None

    def answers(self) -> bool:
        # It listens only once it has recovered.
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
            return bool(probe.recv(1))
        return False


SERVERS: Final = {cls.kind: cls for cls in (PostgreSQLServer, MariaDBServer)}


@contextmanager
def throw_away(kind: str) -> Iterator[ThrowAwayServer]:
    """A new server of that kind; nothing is left of it afterwards. Raises ServerError."""
    with tempfile.TemporaryDirectory(prefix="tasksets-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        server = SERVERS[kind](directory / "server", _free_port())
        server.directory.mkdir()
        server.own()
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.crash()


@contextmanager
def own(database: str) -> Iterator[dict[str, str]]:
    """The variables with which the suite has a server of that database to itself; SQLite has none
    to have. Raises ServerError."""
    if database not in SERVERS:
        yield {}
        return
    with throw_away(database) as server:
        yield server.environment()


def given() -> ThrowAwayServer | None:
    """The server that this process may break, if there is one."""
    if not (text := os.environ.get(SERVER)):
        return None
    where = json.loads(text)
    return SERVERS[where["kind"]](Path(where["directory"]), where["port"])


def _program(name: str) -> str:
    # Debian keeps the server's own programs out of everybody's way.
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    places = [*map(str, debian[-1:]), "/usr/sbin", os.environ.get("PATH", os.defpath)]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise ServerError(f"{name} is not installed")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
