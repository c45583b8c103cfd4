"""The last two members of many sets end at the same moment, in different processes."""

from __future__ import annotations

import time
from typing import Final

import pytest

from django_tasksets.maintenance import retire
from django_tasksets.store import get_store
from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.tasks import collect
from tests.races import recorders
from tests.workers.harness import Ledger, Start

pytestmark = pytest.mark.django_db(transaction=True)

SETS: Final = scale.size(200, 20_000)
PAIRS: Final = 2


@pytest.mark.experiment("The last two members of a set are recorded at the same moment")
@pytest.mark.timeout(300 + SETS // 10)
def test_one_of_the_two_last_finishes_the_set(
    start: Start,
    ledger: Ledger,
    report: Report,
    child_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = get_store()
    made = recorders.make_pairs(store, SETS, callback=collect.name)
    for name, value in child_environment.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    recorded_by = recorders.race(store, made, PAIRS)
    took = time.monotonic() - began
    for worker_id in recorded_by:
        retire(store, worker_id)

    worker = start("--processes", "2", "-v0")
    load.wait_for_the_end(120 + SETS / 20)
    load.stop_all(worker)

    found = oracle.check(ledger)
    assert (found.sets, found.members, found.callbacks) == (SETS, 2 * SETS, SETS)
    assert (len(ledger.lines("begin")), found.again) == (SETS, 0)
    report(
        f"{SETS:,} sets of 2, ended by {2 * PAIRS} processes in pairs in {took:.0f} s: "
        f"{found.callbacks:,} callbacks, each once"
    )
