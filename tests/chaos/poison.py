"""Tasks that harm the process that executes them, in every way that comes to mind."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from django.db import connection, transaction

from django_tasksets import Task, task
from tests.workers.tasks import note

CGROUP: Final = "TASKSETS_CHAOS_CGROUP"
"""The environment variable that names a control group with little memory."""
LEFT_FOR: Final = 5.0
"""How long processes live that are left behind."""
PRINTED: Final = 10_000_000

# Deadly


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def outgrow_memory() -> None:
    """The kernel ends it, as it does where memory runs out."""
    Path(os.environ[CGROUP], "cgroup.procs").write_text(str(os.getpid()))
    held = []
    while True:
        held.append(b"x" * 16_000_000)


# Never ending


def stop() -> None:
    """The signal takes its time: a task that just returned might end before."""
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(3600)


def spin() -> None:
    while True:
        pass


def hold_the_interpreter() -> None:
    re.match(r"(x+)+$", "x" * 60 + "y")


# Failing


def recur() -> None:
    recur()


def leave() -> None:
    sys.exit(3)


def interrupt() -> None:
    raise KeyboardInterrupt


def ask_for_memory() -> None:
    bytearray(1 << 60)


# Harmful


def close_descriptor() -> None:
    """The connection's socket is closed under it. Something else takes its number: else that would
    be the next connection's, which this one would break as it is closed."""
    connection.ensure_connection()
    opened: Any = connection.connection
    if connection.vendor == "sqlite":
        opened.close()
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, opened.fileno())
    os.close(nothing)


def leave_transaction_open() -> None:
    transaction.atomic().__enter__()
    connection.ensure_connection()


def leave_autocommit_off() -> None:
    transaction.set_autocommit(False)


def ignore_signals() -> None:
    """Threads may not do that by Python, but C may."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        ctypes.CDLL(None).signal(int(number), ctypes.c_void_p(int(signal.SIG_IGN)))


def block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def delete_directory() -> None:
    gone = tempfile.mkdtemp()
    os.chdir(gone)
    Path(gone).rmdir()


def print_much() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.write(("x" * 99 + "\n") * (PRINTED // 200))


def leave_thread() -> None:
    threading.Thread(target=lambda: time.sleep(3600), daemon=True).start()


def leave_program() -> None:
    subprocess.Popen(["sleep", str(LEFT_FOR)])


def leave_fork() -> None:
    if os.fork() == 0:
        time.sleep(LEFT_FOR)
        os._exit(0)


def let_both_go_on() -> None:
    os.fork()


ACTS: Final[dict[str, Callable[[], object]]] = {
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "kill": kill,
    "exit": lambda: os._exit(3),
    "exit in order": lambda: os._exit(0),
    "exit as lost": lambda: os._exit(71),
    "outgrow memory": outgrow_memory,
    "spin": spin,
    "hold the interpreter": hold_the_interpreter,
    "stop": stop,
    "recur": recur,
    "leave": leave,
    "interrupt": interrupt,
    "ask for memory": ask_for_memory,
    "close descriptor": close_descriptor,
    "leave transaction open": leave_transaction_open,
    "leave autocommit off": leave_autocommit_off,
    "ignore signals": ignore_signals,
    "block signals": block_signals,
    "delete directory": delete_directory,
    "print much": print_much,
    "leave thread": leave_thread,
    "leave program": leave_program,
    "leave fork": leave_fork,
    "let both go on": let_both_go_on,
}


@task(bind=True)
def poison(self: Task, how: str) -> str:
    """Returns what it has done, if it still can."""
    pid = os.getpid()
    note("begin", time.time(), self.request.id)
    ACTS[how]()
    if os.getpid() == pid:
        note("end", self.request.id)
    return how
