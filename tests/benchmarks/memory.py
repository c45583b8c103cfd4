"""A set of 100,000 from a generator that reads the database: what it costs its caller in memory.

And that it is the caller's: it commits with the transaction around it, or is gone with it.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import lab

COUNT = 100_000
TARGET = 60


def measure(title: str, rounds: int) -> Iterator[lab.Figure]:
    from django.contrib.auth.models import Group
    from django.db import transaction

    # Some source of calls that is in the database, and all modules loaded before the first look.
    for start in range(0, COUNT, 1000):
        Group.objects.bulk_create(Group(name=f"{n}") for n in range(start, start + 1000))
    apply_set(10)
    grown: list[float] = []
    for _ in range(rounds):
        lab.empty_sets()
        with suppress(Undo), transaction.atomic():
            apply_set(COUNT)
            assert counts() == (1, COUNT + 1)
            raise Undo
        assert counts() == (0, 0)
        reset_peak()
        before = memory("VmRSS")
        with transaction.atomic():
            apply_set(COUNT)
        grown.append(memory("VmHWM") - before)
        assert counts() == (1, COUNT + 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield lab.Figure(
        f"a set of {COUNT:,} from a generator: growth of its caller",
        title,
        f"{lab.spread(grown, 1)} MB, {peak:.0f} MB in all",
        f"< {TARGET} MB",
        max(grown) < TARGET,
    )


class Undo(Exception):
    """Rolls a transaction back."""


def apply_set(count: int) -> None:
    from django.contrib.auth.models import Group

    from django_tasksets import TaskSet
    from tests.benchmarks.tasks import add, total

    groups = Group.objects.order_by("pk")[:count].iterator()
    calls = (add.subtask((group.pk, 1)) for group in groups)
    TaskSet(calls, on_success=total.subtask()).apply_async()


def counts() -> tuple[int, int]:
    from django_tasksets.models import SubtaskRecord, TaskSetRecord

    return TaskSetRecord.objects.count(), SubtaskRecord.objects.count()


def memory(line: str, pid: int | None = None) -> float:
    """What Linux says of a process's memory, by default of this one's, in MB."""
    status = Path(f"/proc/{pid or 'self'}/status").read_text()
    words = next(text for text in status.splitlines() if text.startswith(line)).split()
    return int(words[1]) / 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    lab.main(measure, rounds=3)
