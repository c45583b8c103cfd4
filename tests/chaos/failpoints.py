"""Fail points: a process ends, its connection breaks or it stops between any two statements.

The package knows nothing of them. A process that starts with the environment variable POINT (see
apps.py) has every statement and every commit of the package's own operations go through `pass_`,
which names the place by the operation and the function that the statement comes from. So the
points need not be kept up with the code: a run that records them finds what there is.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

POINT: Final = "TASKSETS_CHAOS_POINT"
"""The environment variable: the points' names, what happens there, once at each, and a directory
for what is to be told, as JSON. Without names the names of all points that are passed are told."""
ACTIONS: Final = ("exit", "raise", "stop")

PACKAGE: Final = "django_tasksets"
# By where they begin: the operations whose statements are to be told apart.
OPERATIONS: Final = {
    ("enqueueing", "enqueue_set"): "enqueue",
    ("enqueueing", "add"): "add",
    ("enqueueing", "seal"): "seal",
    ("claimer", "Claimer._claimed"): "claim",
    ("recording", "record"): "record",
    ("completion", "release"): "release",
    ("steering", "retry_failed_set"): "retry",
    ("steering", "pause_set"): "pause",
    ("steering", "resume_set"): "resume",
    ("control", "revoke_set"): "revoke",
    ("maintenance", "register"): "register",
    ("maintenance", "retire"): "retire",
    ("maintenance", "beat"): "beat",
    ("maintenance", "mark_lost"): "bury",
    ("maintenance", "mark_silent_lost"): "bury",
    ("maintenance", "rescue"): "rescue",
    ("pulse", "Pulse._promote"): "promote",
    ("sweeping", "sweep"): "sweep",
    ("announcing", "announce_finished"): "announce",
}
# Frames that say nothing about which statement it is.
PLUMBING: Final = frozenset({"run", "work", "locked_work", "locked", "_ids"})

_armed: dict[str, Any] = {}
_passed: set[str] = set()
_here = threading.local()


def install() -> None:
    """Have this process's statements pass the points; which one is armed, POINT says."""
    _armed.update(json.loads(os.environ[POINT]))
    connection_created.connect(_watch, dispatch_uid="chaos")
    commit = BaseDatabaseWrapper._commit  # type: ignore[attr-defined]

    @functools.wraps(commit)
    def passing(connection: BaseDatabaseWrapper) -> Any:
        pass_(connection, "commit")
        done = commit(connection)
        pass_(connection, "committed")
        return done

    BaseDatabaseWrapper._commit = passing  # type: ignore[attr-defined]
    with suppress(ImportError):
        _watch_copy()


def _watch(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if _around not in connection.execute_wrappers:
        connection.execute_wrappers.append(_around)


def _around(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
    connection = arguments[-1]["connection"]
    # The transactions of SQLite begin and end by statements; their ends have points of their own.
    verb = sql.split(maxsplit=1)[0]
    if verb in ("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK"):
        return execute(sql, *arguments)
    pass_(connection, "")
    result = execute(sql, *arguments)
    if verb != "SELECT" and not connection.in_atomic_block:
        pass_(connection, "committed")
    return result


def _watch_copy() -> None:
    """COPY does not go through Django's cursor."""
    from django.db import connections
    from django.db.backends.postgresql import base

    def copy(cursor: Any, *arguments: Any) -> Any:
        for connection in connections.all(initialized_only=True):
            if connection.connection is cursor.connection:
                pass_(connection, "")
        return super(base.CursorMixin, cursor).copy(*arguments)

    base.CursorMixin.copy = copy  # type: ignore[attr-defined]


def pass_(connection: BaseDatabaseWrapper, what: str) -> None:
    """Here is a point; if it is an armed one, let it happen, once."""
    name = _name(sys._getframe(1), what)
    if name is None:
        return
    names = _armed["names"]
    if not names:
        if name not in _passed:
            _passed.add(name)
            _append("points", name)
    elif name in names and _is_first(names.index(name)):
        _happen(connection, name)


def _name(frame: FrameType | None, what: str) -> str | None:
    """`operation:function`, in words of the code; None outside all operations."""
    place, path = "", []
    entry = None
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(PACKAGE):
            function = frame.f_code.co_qualname
            if not place and function.rpartition(".")[2] not in PLUMBING:
                place = function.rpartition(".")[2]
            operation = OPERATIONS.get((module.rpartition(".")[2], function))
            if operation is not None:
                path.append(operation)
                entry = frame
        frame = frame.f_back
    if not path:
        return None
    # A sweep that releases is another place than a record that does.
    operation = "/".join(dict.fromkeys((path[-1], path[0])))
    return _numbered(f"{operation}:{place} {what}".strip(), entry)


def _numbered(name: str, entry: FrameType | None) -> str:
    """The second statement of a function is another point than its first."""
    if getattr(_here, "entry", None) is not entry:
        _here.entry, _here.seen = entry, Counter()
    _here.seen[name] += 1
    number = min(_here.seen[name], 3)
    return name if number == 1 else f"{name} {number}"


def _is_first(number: int) -> bool:
    try:
        (Path(_armed["directory"]) / f"happened-{number}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _happen(connection: BaseDatabaseWrapper, name: str) -> None:
    action = _armed["action"]
    assert connection.connection is not None
    _append("happened", f"{name} {action} {os.getpid()}")
    if action == "exit":
        os._exit(137)
    if action == "stop":
        again = f"sleep {_armed['seconds']}; kill -CONT {os.getpid()}"
        subprocess.Popen(["/bin/sh", "-c", again], start_new_session=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    if connection.vendor == "sqlite":
        raise OperationalError("disk I/O error, on purpose")
    # As when the server, or what lies between, has gone: the driver will find out.
    with socket.socket(fileno=os.dup(connection.connection.fileno())) as to_server:
        to_server.shutdown(socket.SHUT_RDWR)
    if name.endswith("committed"):
        raise OperationalError("the answer was lost, on purpose")


def _append(file: str, line: str) -> None:
    with (Path(_armed["directory"]) / file).open("a") as stream:
        stream.write(f"{line}\n")
