"""Tasks that try what a worker withstands. They note what they do in a ledger: a file to which each
line is added in one write."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from pathlib import Path

from django.db import DatabaseError, OperationalError, connection, transaction

from django_tasksets import SoftTimeLimitExceeded, Task, TaskSetResult, task
from django_tasksets.models import TaskSetRecord

LIMIT = 60


def note(ledger: str, *words: object) -> None:
    line = " ".join(map(str, words)) + "\n"
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@task
def write(ledger: str, *words: str) -> str:
    note(ledger, *words)
    return " ".join(words)


@task
def write_state(result: TaskSetResult, ledger: str, kind: str) -> None:
    note(ledger, kind, result.status)


@task(bind=True)
def hold(self: Task, ledger: str, name: str, gate: str) -> str:
    """Runs until the gate is there, or the subtask is revoked."""
    note(ledger, "begin", name, os.getpid())
    end = time.monotonic() + LIMIT
    while not Path(gate).exists() and not self.request.revoked:
        assert time.monotonic() < end
        time.sleep(0.01)
    note(ledger, "revoked" if self.request.revoked else "end", name)
    return name


@task
async def hold_async(ledger: str, name: str, gate: str) -> str:
    note(ledger, "begin", name, os.getpid())
    end = time.monotonic() + LIMIT
    try:
        while not Path(gate).exists():  # noqa: ASYNC240  it takes no time
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        # A second cancellation would keep this from being noted.
        await asyncio.sleep(0.7)
        note(ledger, "cancelled", name)
        raise
    note(ledger, "end", name)
    return name


@task
def hold_deaf(ledger: str, name: str, gate: str) -> str:
    """Does not care whether it is revoked, nor for its soft limit."""
    note(ledger, "begin", name, os.getpid())
    end = time.monotonic() + LIMIT
    while not Path(gate).exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    note(ledger, "end", name)
    return name


@task
async def block_the_loop(ledger: str, name: str, gate: str) -> None:
    note(ledger, "begin", name, os.getpid())
    end = time.monotonic() + LIMIT
    while not Path(gate).exists():  # noqa: ASYNC240
        assert time.monotonic() < end
        time.sleep(0.01)  # noqa: ASYNC251  that is the point


# What tasks do to themselves


@task
def moment() -> float:
    return time.time()


@task
def leave() -> None:
    sys.exit(3)


@task
def interrupt() -> None:
    raise KeyboardInterrupt


@task
async def await_cancelled() -> None:
    """What it awaits was cancelled; it itself was not."""
    inner = asyncio.ensure_future(asyncio.sleep(LIMIT))
    inner.cancel()
    await inner


@task
def give_object() -> object:
    return object()


@task
def leave_transaction_open() -> None:
    transaction.atomic().__enter__()
    TaskSetRecord.objects.update(name="by a transaction that was left open")


@task
def soft_limit(seconds: float = LIMIT) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


@task
def soft_limit_handled() -> str:
    try:
        soft_limit.run()
    except SoftTimeLimitExceeded:
        return "handled"
    return "not interrupted"


@task
async def soft_limit_async() -> None:
    await asyncio.sleep(LIMIT)


@task(atomic=True)
def rename_atomically(taskset_id: str, name: str, how: str = "") -> str:
    TaskSetRecord.objects.filter(id=taskset_id).update(name=name)
    if how == "fail":
        raise ValueError("rolled back")
    return name


@task(atomic=True)
def deadlock_once(ledger: str) -> str:
    """A deadlock, as the driver reports it, the first time."""
    if not Path(ledger).exists():
        note(ledger, "deadlock")
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


# What kills processes


@task
def crash() -> None:
    ctypes.string_at(0)


@task
def exit_at_once(code: int) -> None:
    os._exit(code)


@task
def pid() -> int:
    return os.getpid()
