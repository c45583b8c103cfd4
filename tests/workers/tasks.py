"""Tasks that tests of workers use: they write down what happens to them, and wait to be told."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from django.db import DatabaseError, OperationalError, connection, transaction
from django.utils import timezone

from django_tasksets import Task, TaskSet, signals, task
from django_tasksets.exceptions import Revoked, SoftTimeLimitExceeded
from django_tasksets.models import TaskSetRecord

LEDGER = "TASKSETS_TEST_LEDGER"
"""The environment variable that names a directory: in it, the file that is written to, and files
that tell tasks to go on."""
FORGET = "TASKSETS_TEST_FORGET"
"""The environment variable that keeps `newcomer` from being known, as in code of last week."""
LIMIT = 60

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="")


def note(*words: object) -> None:
    """Add a line to the ledger, whole or not at all: others write at the same time."""
    line = " ".join(map(str, words)) + "\n"
    file = os.open(Path(os.environ[LEDGER]) / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def is_first(name: str) -> bool:
    """Whether nobody has asked that before."""
    try:
        (Path(os.environ[LEDGER]) / f"first-{name}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def is_told(name: str) -> bool:
    return (Path(os.environ[LEDGER]) / name).exists()


@task
def write(*words: str) -> int:
    note("write", *words)
    return os.getpid()


@task(bind=True)
def hold(self: Task, name: str) -> str:
    """Goes on once it is told."""
    note("begin", name, os.getpid(), self.request.attempt)
    until = time.monotonic() + LIMIT
    while not is_told(name) and time.monotonic() < until:
        time.sleep(0.01)
    note("end", name, os.getpid())
    return name


@task
async def ahold(name: str) -> str:
    """The same, async; says when it is cancelled."""
    note("begin", name, os.getpid())
    try:
        until = time.monotonic() + LIMIT
        while not is_told(name) and time.monotonic() < until:  # noqa: ASYNC110  told by a file
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        note("cancelled", name)
        raise
    note("end", name, os.getpid())
    return name


@task
def nap(seconds: float) -> None:
    time.sleep(seconds)


@task
async def asleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task(bind=True)
def cooperate(self: Task) -> None:
    """Ends when it is revoked."""
    note("begin", self.request.id)
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        if self.request.revoked:
            raise Revoked
        time.sleep(0.01)


@task(autoretry_for=(ValueError,), max_retries=5, retry_backoff=0.1, retry_jitter=False, bind=True)
def flaky(self: Task, failures: int) -> int:
    """Fails so often, then succeeds."""
    note("flaky", time.time())
    if self.request.retries < failures:
        raise ValueError(self.request.retries)
    return self.request.retries


@task
def look_at_connection(results: list[Any]) -> bool:
    """A callback: whether its thread has a connection when it begins."""
    return connection.connection is not None


@task
def stamp() -> float:
    """When it was executed."""
    return time.time()


@task
def fan_out(names: list[str]) -> None:
    """Enqueues others, as it ends."""
    TaskSet([write.subtask((name,)) for name in names]).apply_async()


# What goes wrong


@task
def die(name: str, how: str) -> None:
    """Takes its process with it, once it is told."""
    note("begin", name, os.getpid())
    while not is_told(name):
        time.sleep(0.01)
    if how == "exit":
        os._exit(0)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


@task
def misbehave(how: str) -> str:
    """Leaves its thread and its connection as no task should."""
    if how == "open transaction":
        transaction.atomic().__enter__()
        connection.ensure_connection()
    elif how == "autocommit off":
        transaction.set_autocommit(False)
    elif how == "closed":
        connection.ensure_connection()
        assert connection.connection is not None
        connection.connection.close()
    elif how == "exit":
        raise SystemExit(3)
    elif how == "interrupt":
        raise KeyboardInterrupt
    elif how == "recursion":
        misbehave.run(how)
    return how


@task
def leave_trace() -> int:
    """Writes to the database; returns how many rows of that kind there are."""
    from django.contrib.auth.models import Group

    Group.objects.create(name=f"{timezone.now()} {os.getpid()}")
    return Group.objects.count()


@task
async def swallow_room() -> str:
    """What another task left in the context."""
    before, word = who.get(), str(id(asyncio.current_task()))
    who.set(word)
    await asyncio.sleep(0.01)
    assert who.get() == word
    return before


@task
async def give_up() -> None:
    """Awaits what is cancelled, not by us."""
    sleeping = asyncio.ensure_future(asyncio.sleep(LIMIT))
    sleeping.cancel()
    await sleeping


@task
async def leave_loop() -> None:
    """Has a task of its own that asks to exit."""

    async def leave() -> None:
        raise SystemExit

    leaving = asyncio.ensure_future(leave())
    await asyncio.sleep(0.05)
    assert leaving.done()


@task
def give_object() -> object:
    return object()


@task
def leave_transaction_open() -> None:
    transaction.atomic().__enter__()
    TaskSetRecord.objects.update(name="by a transaction that was left open")


@task(atomic=True)
def rename_atomically(taskset_id: str, name: str, how: str = "") -> str:
    TaskSetRecord.objects.filter(id=taskset_id).update(name=name)
    if how == "fail":
        raise ValueError("rolled back")
    return name


@task(atomic=True)
def deadlock_once() -> str:
    """A deadlock, as the driver reports it, the first time."""
    if is_first("deadlock"):
        _raise_deadlock()
    return "after all"


def _raise_deadlock() -> None:
    if connection.vendor == "postgresql":
        import psycopg

        raise OperationalError from psycopg.errors.DeadlockDetected()
    if connection.vendor == "mysql":
        raise OperationalError(1213, "Deadlock found when trying to get lock")
    raise OperationalError("database is locked")


@task
def fail_in_database() -> None:
    with transaction.atomic():
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT nothing FROM nowhere")
        except DatabaseError:
            pass
        TaskSetRecord.objects.exists()


# Limits


@task(soft_time_limit=0.3)
def soft(name: str) -> str:
    try:
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        note("soft", name)
        if name == "clean":
            return name
        raise
    return "never told"


@task(soft_time_limit=0.3)
async def asoft() -> None:
    await asyncio.sleep(LIMIT)


@task(time_limit=0.5)
def hard() -> None:
    note("hard", os.getpid())
    time.sleep(LIMIT)


@task(time_limit=0.5)
def hog() -> None:
    note("hog", os.getpid())
    re.match(r"(x+)+$", "x" * 60 + "y")  # Keeps the interpreter to itself for years.


@task(time_limit=0.5)
async def ahard(how: str) -> None:
    note("hard", os.getpid())
    if how == "deaf":
        time.sleep(LIMIT)  # noqa: ASYNC251  blocks the loop on purpose
    await asyncio.sleep(LIMIT)


# Hooks and signals


class Watched(Task):
    """Writes down what its hooks are called with."""

    def run(self, outcome: str) -> str:
        if outcome == "fail":
            raise ValueError(outcome)
        return outcome

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note("on_success", retval, task_id == self.request.id)
        if retval == "broken":
            raise SystemExit

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note("on_failure", exc)

    def after_return(self, status: str, *args: Any) -> None:
        note("after_return", status)


def keep_ledger_of_signals() -> None:
    """Write down every signal, and raise: that must change nothing."""

    def receiver(name: str) -> Any:
        def receive(sender: Any, signal: Any, **arguments: Any) -> None:
            aged = connection.settings_dict["CONN_MAX_AGE"]
            status = arguments.get("status", "")
            note("signal", name, "ours" if aged is None else "ordinary", status)
            raise ValueError(name)

        return receive

    for name in (
        "worker_started",
        "subtask_started",
        "subtask_finished",
        "subtask_retried",
        "taskset_progressed",
        "taskset_finished",
        "worker_stopped",
    ):
        getattr(signals, name).connect(receiver(name), weak=False)


if os.environ.get("TASKSETS_TEST_SIGNALS"):
    keep_ledger_of_signals()


if not os.environ.get(FORGET):

    @task
    def newcomer() -> str:
        return "welcome"


@task
def run_program(seconds: float) -> int:
    """As tasks do that have another program do their work."""
    note("program")
    return subprocess.run(["sleep", str(seconds)], check=True).returncode


@task
def fork_and_end() -> int | None:
    """The exit code of a process that was forked, and asked to end."""
    context = multiprocessing.get_context("fork")
    child = context.Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join(10)
    return child.exitcode


class Unusual(BaseException):
    """Not an Exception."""


@task
async def raise_unusual() -> None:
    raise Unusual("on purpose")


@task
def leave_a_copy() -> None:
    """Forks, and lets both go on."""
    if os.fork() == 0:
        sys.exit(0)
