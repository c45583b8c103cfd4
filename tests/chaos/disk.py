"""A small disk for a database, that can be filled."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from django.db import connection

from tests.chaos.server import ThrowAwayServer

SPARE: Final = 96 * 2**20
"""How much larger it is than what lies on it at first, in bytes."""
BLOCK: Final = bytes(2**16)


class Disk:
    """A file system in memory."""

    def __init__(self, directory: Path) -> None:
        self._filler = directory / "filler"

    def fill(self) -> None:
        """Leave not a byte. To be called again while others may give some back."""
        with suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while file.write(BLOCK):
                pass
        with suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while file.write(b"x"):
                pass

    def free(self) -> None:
        self._filler.unlink()


@contextmanager
def mounted(directory: Path, size: int) -> Iterator[Disk]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], check=True)
    try:
        yield Disk(directory)
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def may_mount(directory: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        return False
    subprocess.run(["umount", directory], check=True)
    return True


@contextmanager
def under_server(server: ThrowAwayServer) -> Iterator[Disk]:
    """The server's data lie on it meanwhile; afterwards they are what they were before."""
    data = server.directory / "data"
    aside = server.directory / "aside"
    server.stop()
    # With their owner, who alone may read them.
    subprocess.run(["cp", "-a", data, aside], check=True)
    try:
        with mounted(data, _size(aside) + SPARE) as disk:
            subprocess.run(["cp", "-a", f"{aside}/.", data], check=True)
            server.start()
            try:
                yield disk
            finally:
                server.crash()
    finally:
        shutil.rmtree(aside)
        server.start()


@contextmanager
def under_file(directory: Path) -> Iterator[tuple[Disk, str]]:
    """A copy of the SQLite file that this process works on lies on it meanwhile, and is worked on
    instead of it; where."""
    before = connection.settings_dict["NAME"]
    with mounted(directory, SPARE) as disk:
        name = str(directory / "database.sqlite3")
        with closing(sqlite3.connect(before)) as source, closing(sqlite3.connect(name)) as target:
            source.backup(target)
        connection.close()
        connection.settings_dict["NAME"] = name
        try:
            yield disk, name
        finally:
            connection.close()
            connection.settings_dict["NAME"] = before


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
