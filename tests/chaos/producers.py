"""Processes that enqueue sets without end, and are killed while they do.

`python -m tests.chaos.producers TRIES SEED`: so many of them, one after the other. What a producer
is about to commit, and what it knows to be committed, it writes to the ledger.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import django
from django.db import connections, transaction

MEMBERS: Final = 50
ADDED: Final = 10
ADDITIONS: Final = 5
LONGEST_LIFE: Final = 0.5


class RolledBack(Exception):
    """On purpose."""


def _calls(count: int) -> Iterator[Any]:
    from tests.chaos.tasks import square

    return (square.subtask((number, 0.0)) for number in range(count))


def _slowly() -> Iterator[Any]:
    for call in _calls(MEMBERS):
        time.sleep(0.0005)
        yield call


def _set(key: str, calls: Any) -> Any:
    from django_tasksets import TaskSet
    from tests.chaos.tasks import collect, tell

    return TaskSet(
        calls,
        name=key,
        on_success=collect.subtask(),
        on_failure=tell.subtask(),
        on_finish=tell.subtask(),
    )


def bulk(key: str) -> None:
    _set(key, list(_calls(MEMBERS))).apply_async()


def generator(key: str) -> None:
    _set(key, _slowly()).apply_async()


def outer(key: str) -> None:
    with transaction.atomic():
        _set(key, list(_calls(MEMBERS))).apply_async()
        time.sleep(0.005)


def opened(key: str) -> None:
    with _set(key, []).open() as result:
        for _ in range(ADDITIONS):
            result.add(list(_calls(ADDED)))
            time.sleep(0.002)


def rollback(key: str) -> None:
    try:
        with transaction.atomic():
            _set(key, list(_calls(MEMBERS))).apply_async()
            raise RolledBack
    except RolledBack:
        pass


def savepoint(key: str) -> None:
    """The set is enqueued; another one in it is not."""
    with transaction.atomic():
        _set(key, list(_calls(MEMBERS))).apply_async()
        try:
            with transaction.atomic():
                _set(f"inner-{key}", list(_calls(MEMBERS))).apply_async()
                raise RolledBack
        except RolledBack:
            pass


WAYS: Final = (bulk, generator, outer, opened, rollback, savepoint)


def produce(name: str, chance: random.Random) -> None:
    """Enqueue one after the other, until somebody ends this process."""
    from tests.workers.tasks import note

    number = 0
    while True:
        way = chance.choice(WAYS)
        key = f"{name}-{number}"
        note("asked", way.__name__, key)
        way(key)
        note("committed", way.__name__, key)
        number += 1


def main(tries: int, chance: random.Random) -> None:
    """A producer after the other, each killed at a moment of chance."""
    django.setup()
    import tests.chaos.tasks  # noqa: F401  once, not in each of them

    # What they share would be the connection.
    connections.close_all()
    for number in range(tries):
        life, its = chance.uniform(0.02, LONGEST_LIFE), random.Random(chance.random())
        pid = os.fork()
        if pid == 0:
            try:
                produce(str(number), its)
            finally:
                os._exit(1)
        time.sleep(life)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"a producer ended by itself: {status}")


if __name__ == "__main__":
    main(int(sys.argv[1]), random.Random(sys.argv[2]))
