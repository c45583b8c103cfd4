"""Work to be disturbed, and the wait for its end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final, Self, TypeVar

from django.db import Error, InterfaceError, OperationalError, connections

from django_tasksets import TaskSet, TaskSetResult, subtask
from django_tasksets.models import SubtaskRecord
from tests.chaos import scale
from tests.chaos.tasks import collect, square, tell
from tests.workers.harness import LIMIT, Worker, wait_until

T = TypeVar("T")

AWAY: Final = (OperationalError, InterfaceError)
"""What a server that is away, or that has cut a connection, makes a statement raise."""


def squares(members: int, longest: float = 0.05) -> list[subtask]:
    """Calls whose results can be foretold; each takes up to `longest` seconds."""
    return [square.subtask((number, longest)) for number in range(members)]


def apply(calls: list[subtask], queue: str | None = None) -> TaskSetResult:
    """One set with a callback for every end."""
    options = {"queue": queue} if queue else {}
    return TaskSet(
        calls,
        on_success=collect.subtask(options=options),
        on_failure=tell.subtask(options=options),
        on_finish=tell.subtask(options=options),
    ).apply_async()


def apply_many(sets: int, members: int, longest: float = 0.05) -> list[TaskSetResult]:
    """Many sets of squares."""
    return [apply(squares(members, longest)) for _ in range(sets)]


def wait_for_the_end(limit: float) -> float:
    """Wait until nothing is unfinished; how long that took, in seconds."""
    began = time.monotonic()
    unfinished = SubtaskRecord.objects.unfinished()
    wait_until(
        lambda: not patiently(unfinished.exists), f"the end of all, seed {scale.seed}", limit
    )
    return time.monotonic() - began


def patiently(ask: Callable[[], T], limit: float = LIMIT) -> T:
    """What `ask` returns, once the server answers it; to be used for what may be asked twice."""
    answers: list[T] = []

    def asked() -> bool:
        try:
            answers.append(ask())
        except AWAY:
            forget_connections()
        return bool(answers)

    wait_until(asked, "an answer of the server", limit)
    return answers[0]


def forget_connections() -> None:
    """This thread's may be broken; the next statement makes new ones."""
    with contextlib.suppress(Error):
        connections.close_all()


class Stream(threading.Thread):
    """Applies sets of squares one after the other, whether or not a server takes them."""

    def __init__(self, members: int, longest: float, pause: float) -> None:
        super().__init__()
        self._members, self._longest, self._pause = members, longest, pause
        self._stopping = threading.Event()
        self.results: list[TaskSetResult] = []
        """The sets that are known to be there."""
        self.failures = 0
        """How often that could not be known."""
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopping.wait(self._pause):
                self._apply()
        except BaseException as error:  # noqa: BLE001  raised again by end()
            self._error = error
        finally:
            forget_connections()

    def _apply(self) -> None:
        try:
            self.results.append(apply(squares(self._members, self._longest)))
        except AWAY:
            self.failures += 1
            forget_connections()

    def end(self) -> None:
        self._stopping.set()
        self.join()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def stop_all(*workers: Worker) -> None:
    """End them in order; each must be able to."""
    for worker in workers:
        wait_until(worker.children, "its first child")
    assert [worker.stop() for worker in workers] == [0] * len(workers)
