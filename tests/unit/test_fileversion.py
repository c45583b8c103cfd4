"""Hearing commits to an SQLite file."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_tasksets.store import fileversion
from django_tasksets.store.fileversion import FileListener
from django_tasksets.wakeups import LocalBell

SOON = 5.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "db.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE notes (text)")
    return path


def connect(file: Path) -> Any:
    """What a listener needs of Django's connection."""
    return SimpleNamespace(
        connection=sqlite3.connect(file, isolation_level=None),
        settings_dict={"NAME": file},
        ensure_connection=lambda: None,
    )


@pytest.fixture(params=["told by the kernel", "not told"])
def listener(
    file: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileListener]:
    if request.param == "not told":
        monkeypatch.setattr(fileversion, "_watch", lambda directory: None)
    listener = FileListener(connect(file))
    yield listener
    listener.close()


def write(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO notes VALUES ('new')")


def test_a_commit_is_heard_soon(file: Path, listener: FileListener) -> None:
    bell = LocalBell()
    for _ in range(5):
        timer = threading.Timer(0.02, write, [file])
        timer.start()
        assert listener.wait(SOON, bell)
        timer.join()


def test_a_commit_before_the_wait_is_heard_at_once(file: Path, listener: FileListener) -> None:
    write(file)

    assert listener.wait(0.01, LocalBell())


def test_nothing_is_heard_of_what_is_rolled_back(file: Path, listener: FileListener) -> None:
    other = sqlite3.connect(file)
    other.execute("INSERT INTO notes VALUES ('not yet')")
    other.rollback()

    assert not listener.wait(0.05, LocalBell())


def test_a_commit_takes_long_to_be_finished(file: Path, listener: FileListener) -> None:
    other = sqlite3.connect(file, check_same_thread=False)
    other.execute("INSERT INTO notes VALUES ('not yet')")
    timer = threading.Timer(0.1, other.commit)
    timer.start()

    assert listener.wait(SOON, LocalBell())
    timer.join()


@pytest.mark.skipif(sys.platform != "linux", reason="only there the kernel tells")
def test_a_commit_is_heard_soon_though_something_else_was_written_before(file: Path) -> None:
    listener, late = FileListener(connect(file)), list[float]()
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA synchronous = off")
    committed = [0.0]

    def commit() -> None:
        other.execute("INSERT INTO notes VALUES ('new')")
        committed[0] = time.monotonic()

    for _ in range(10):
        # Until what it heard last is forgotten.
        time.sleep(0.02)
        timer = threading.Timer(0.0085, commit)
        timer.start()
        file.with_name("something else").write_text("not a commit")
        assert listener.wait(SOON, LocalBell())
        late.append(time.monotonic())
        timer.join()
        late[-1] -= committed[0]
    listener.close()
    other.close()

    assert min(late) < 0.002


@pytest.mark.skipif(sys.platform != "linux", reason="only there the kernel tells")
def test_who_writes_all_the_time_and_commits_nothing_is_not_listened_to(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, looks = FileListener(connect(file)), 0
    version = listener._version

    def looking() -> int:
        nonlocal looks
        looks += 1
        return version()

    monkeypatch.setattr(listener, "_version", looking)
    writes = threading.Thread(target=write_elsewhere, args=[file.with_name("log"), 0.2])
    writes.start()

    assert not listener.wait(0.2, LocalBell())
    # Two for each INTERVAL, and some at the beginning.
    assert looks < 2 * 0.2 / FileListener.INTERVAL + 20
    writes.join()
    listener.close()


def write_elsewhere(file: Path, seconds: float) -> None:
    until = time.monotonic() + seconds
    with file.open("w", buffering=1) as log:
        while time.monotonic() < until:
            log.write("not a commit\n")


def test_the_bell_ends_the_wait(listener: FileListener) -> None:
    bell = LocalBell()
    bell.ring()
    began = time.monotonic()

    assert not listener.wait(SOON, bell)
    assert time.monotonic() - began < SOON


@pytest.mark.skipif(sys.platform != "linux", reason="only there the kernel is asked")
def test_a_listener_leaves_nothing_open(file: Path) -> None:
    def watching() -> int:
        paths = Path("/proc/self/fd").iterdir()
        names = (str(path.readlink()) for path in paths if path.is_symlink())
        return sum("inotify" in name for name in names)

    before = watching()
    listener = FileListener(connect(file))
    assert watching() == before + 1

    listener.close()

    assert watching() == before
