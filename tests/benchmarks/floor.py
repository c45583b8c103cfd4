"""The floor: a set of calls run by a loop that is written out by hand for one kind of database.

One process, one thread, one connection of the bare driver, no Django, no worker to wake, nothing
that can be configured. The tables and indexes are this package's own, and so is the fence: a row
that is not held under (worker_id, claims) any more is not written. What a good engineer would
write for this one set, and what a general task queue can be compared with.
"""

from __future__ import annotations

import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from django_tasksets.ids import new_id

TASKS: dict[str, Callable[..., Any]] = {"add": lambda x, y: x + y, "total": sum}
COLUMNS = (
    "id, taskset_id, role, position, generation, weight, task_name, args, kwargs, options, links, "
    "queue_name, priority, claim_order, status, enqueued_at"
)
SET_COLUMNS = (
    "id, name, status, generation, total, remaining, successful, failed, revoked, has_callbacks, "
    "enqueued_at, sealed_at, revoke_reason, metadata"
)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one run took, in seconds."""

    enqueue: float
    whole: float
    """From the call that enqueues to the callback's start."""


class Floor(ABC):
    """One set of add(i, i), and total() with the list of what they return."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.worker_id = uuid.uuid4()

    def run(self, count: int) -> Timing:
        """Insert, claim, call and record all of it."""
        began = time.perf_counter()
        taskset_id = new_id()
        self.enqueue(taskset_id, count)
        enqueued = time.perf_counter()
        while rows := self.claim():
            if rows[0][5] == "ON_SUCCESS":
                results = [json.loads(text) for text in self.results(taskset_id)]
                whole = time.perf_counter() - began
                assert TASKS[rows[0][2]](results) == count * (count - 1)
                return Timing(enqueued - began, whole)
            outcomes = []
            for key, claims, name, args, kwargs, _ in rows:
                value = TASKS[name](*json.loads(args), **json.loads(kwargs))
                outcomes.append((key, claims, json.dumps(value)))
            self.record(taskset_id, outcomes)
        raise AssertionError("the callback was not released")

    @abstractmethod
    def enqueue(self, taskset_id: uuid.UUID, count: int) -> None:
        """Insert the set, its callback and its members, in one transaction."""

    @abstractmethod
    def claim(self) -> Sequence[tuple[Any, ...]]:
        """Claim a batch: id, claims, name, args, kwargs, role."""

    @abstractmethod
    def record(self, taskset_id: uuid.UUID, outcomes: Sequence[tuple[Any, int, str]]) -> None:
        """Write (id, claims, return value) down, count, and finish; in one transaction."""

    @abstractmethod
    def results(self, taskset_id: uuid.UUID) -> list[str]:
        """What the members returned, in their order."""

    @abstractmethod
    def empty(self) -> None:
        """Make ready for another run."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back."""


FLOORS = {
    "postgresql": "tests.benchmarks.floor_postgresql",
    "sqlite": "tests.benchmarks.floor_sqlite",
    "mysql": "tests.benchmarks.floor_mysql",
}
"""Where the floor of each kind of database is; with the driver that it needs."""


def floor(kind: str, database: str, batch: int) -> Floor:
    """The floor of that kind of database, on the one of that name or in that file."""
    made: Floor = import_module(FLOORS[kind]).Floor(database, batch)
    return made
