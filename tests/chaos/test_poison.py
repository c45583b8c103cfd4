"""Good subtasks, and among them some that harm the process that executes them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from django_tasksets import subtask
from django_tasksets.models import SubtaskRecord
from django_tasksets.statuses import SubtaskStatus
from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.machine import stalled
from tests.chaos.poison import ACTS, CGROUP, LEFT_FOR, poison
from tests.chaos.tasks import square
from tests.workers.harness import Ledger, Start, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

GOOD: Final = scale.size(60, 2000)
ROUNDS: Final = scale.size(1, 4)
"""How often there is each poison."""
FEW: Final = 7
MEMBERS: Final = 10
MAX_CRASHES: Final = 2
TIME_LIMIT: Final = 0.5
LEASE: Final = 20
GRACE: Final = 8.0
MEMORY: Final = 200_000_000

DEADLY: Final = {
    "segfault": "SIGSEGV",
    "abort": "SIGABRT",
    "kill": "SIGKILL",
    "exit": "exited with code 3",
    "exit in order": "exited with code 0",
    "exit as lost": "exited with code 71",
    "outgrow memory": "SIGKILL",
}
"""What the reason says of each."""
ENDLESS: Final = ("spin", "hold the interpreter", "stop")
FAILING: Final = {
    "recur": "builtins.RecursionError",
    "leave": "builtins.SystemExit",
    "interrupt": "builtins.KeyboardInterrupt",
    "ask for memory": "builtins.MemoryError",
}
# What is logged as an error about them; anything else would be about others.
EXPECTED: Final = (
    "worker process gone",
    "worker process killed",
    "subtask ended with its process",
    # One that spins keeps the interpreter from the thread that records, too.
    "not everything could be given back",
    "a transaction was left open",
)


@pytest.fixture
def cgroup() -> Iterator[str | None]:
    """A control group of little memory, where one can be made."""
    group = Path("/sys/fs/cgroup/memory", f"tasksets-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(MEMORY))
    except OSError:
        yield None
        return
    yield str(group)
    # Its processes may not be gone yet.
    wait_until(lambda: not (group / "cgroup.procs").read_text(), "the end of what was in it")
    group.rmdir()


def poisons(cgroup: str | None) -> list[subtask]:
    """All of them; in the selection one of each kind, and a few more."""
    chance = scale.generator("poison")
    names = [name for name in ACTS if cgroup is not None or name != "outgrow memory"]
    if not scale.is_full:
        chosen = [chance.choice(list(kind)) for kind in (DEADLY, ENDLESS, FAILING)]
        chosen = [name for name in chosen if name in names]
        rest = [name for name in names if name not in (*chosen, *ENDLESS)]
        names = [*chosen, *chance.sample(rest, FEW - len(chosen))]
    limit = {"time_limit": TIME_LIMIT}
    return [
        poison.subtask((name,), options=limit if name in ENDLESS else {}) for name in names * ROUNDS
    ]


@pytest.mark.experiment("Subtasks that kill, hang, foul or outgrow their process, 5 % of all")
@pytest.mark.timeout(300 + GOOD)
def test_poison_harms_nobody_else(
    start: Start, ledger: Ledger, report: Report, cgroup: str | None
) -> None:
    bad = poisons(cgroup)
    calls = [square.subtask((number,)) for number in range(GOOD)] + bad
    scale.generator("order").shuffle(calls)
    for begin in range(0, len(calls), MEMBERS):
        load.apply(calls[begin : begin + MEMBERS])
    variables = {CGROUP: cgroup} if cgroup else {}
    options = ("--processes", "2", "--threads", "4", "--grace", str(GRACE), "-v0")
    settings = {"MAX_CRASHES": MAX_CRASHES, "LEASE": LEASE}
    workers = [start(*options, settings=settings, **variables) for _ in range(2)]
    for worker in workers:
        worker.fails = True
    before = stalled()
    took = load.wait_for_the_end(240 + GOOD / 4)
    busy = stalled() - before
    load.stop_all(*workers)
    began = time.monotonic()
    wait_until(lambda: not any(worker.family() for worker in workers), "the end of all processes")
    assert time.monotonic() - began < LEFT_FOR + 1 + busy

    found = oracle.check(ledger)
    assert found.members == len(calls)
    check_good(found)
    counts = check_bad(ledger, busy)
    assert sum(counts.values()) == len(bad)
    for worker in workers:
        check_log(worker.log)
    report(
        f"{GOOD:,} good ones succeeded beside {len(bad)} of {len(set(ACTS))} kinds in "
        f"{took:.0f} s: {counts['deadly']} failed after {MAX_CRASHES} crashes, by name; "
        f"{counts['endless']} over time, {counts['failing']} failed, {counts['harmful']} harmless"
    )


def check_good(found: oracle.Account) -> None:
    good = SubtaskRecord.objects.filter(task_name=square.name)
    harmed = good.exclude(status=SubtaskStatus.SUCCESSFUL, crashes__lt=MAX_CRASHES)
    assert list(harmed.values_list("reason", "status", "crashes", "claims", "attempts")) == []
    assert good.count() == GOOD
    assert found.callbacks == 2 * found.sets


def check_bad(ledger: Ledger, busy: float) -> Counter[str]:
    """Each came to its own end; how many of which kind."""
    begun = {words[-1]: float(words[1]) for words in ledger.lines("begin") if len(words) == 3}
    counts: Counter[str] = Counter()
    for row in SubtaskRecord.objects.filter(task_name=poison.name):
        (how,) = row.get_args()
        kind = check_one(row, how)
        counts[kind] += 1
        if kind == "endless":
            assert row.finished_at is not None
            took = row.finished_at.timestamp() - begun[str(row.id)]
            assert took < TIME_LIMIT + GRACE + busy, how
    return counts


def check_one(row: SubtaskRecord, how: str) -> str:
    what = (how, row.status, row.reason, row.crashes)
    if how in DEADLY:
        assert (row.status, row.crashes) == (SubtaskStatus.FAILED, MAX_CRASHES), what
        assert DEADLY[how] in row.reason, what
        return "deadly"
    assert row.crashes < MAX_CRASHES, what
    if how in ENDLESS:
        assert row.status == SubtaskStatus.FAILED, what
        assert "time limit" in row.get_errors()[-1]["message"], what
        return "endless"
    if how in FAILING:
        assert row.status == SubtaskStatus.FAILED, what
        assert row.get_errors()[-1]["exception_class"] == FAILING[how], what
        return "failing"
    assert (row.status, row.get_return_value()) == (SubtaskStatus.SUCCESSFUL, how), what
    return "harmful"


def check_log(log: str) -> None:
    errors = [line for line in log.splitlines() if " ERROR " in line]
    assert [line for line in errors if not any(word in line for word in EXPECTED)] == []
