"""Every point of every operation, at which a process ends, breaks or stops for a while."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Final

import pytest
from django.apps import apps

from django_tasksets.store.contract import batches
from tests.chaos import failpoints, load, oracle, scale, scenario
from tests.chaos.conftest import Report
from tests.workers.harness import Ledger, Start

pytestmark = pytest.mark.django_db(transaction=True)

LEASE: Final = 3.0
SETTINGS: Final = {
    "LEASE": LEASE,
    "SWEEP_INTERVAL": 0.5,
    "OPEN_TIMEOUT": 2,
    # No subtask is to blame.
    "MAX_CRASHES": 1000,
}
PROMISED: Final = frozenset(
    {"enqueue", "claim", "record", "release", "rescue", "sweep", "seal", "add", "retry"}
)
HANDS: Final = int(os.environ.get("TASKSETS_CHAOS_HANDS", scale.size(1, 10**6)))
"""How many scenarios are run with each action, unless that are all of them."""
# In one of them: points that users' processes pass, that workers do, that hearts do.
IN_A_HAND: Final = {"user": 2, "worker": 1, "heart": 2}
USERS: Final = 2
ROLES: Final = dict.fromkeys(("claim", "record", "register", "retire"), "worker") | dict.fromkeys(
    ("beat", "bury", "rescue", "promote", "sweep", "announce"), "heart"
)
LIMIT: Final = 60.0


class Trials:
    """Runs a scenario in two processes, beside workers, all with the same points armed."""

    def __init__(self, start: Start, ledger: Ledger, environment: dict[str, str]) -> None:
        self._start, self._ledger, self._environment = start, ledger, environment

    def run(self, name: str, points: Sequence[str] = (), action: str = "") -> set[str]:
        """From an empty database to the oracle; returns at which of the points it happened, or,
        without any, which points there are."""
        self._clear()
        directory = self._ledger.directory
        armed = {"names": points, "action": action, "seconds": 2 * LEASE}
        armed["directory"] = str(directory)
        environment = {failpoints.POINT: json.dumps(armed)}
        queues = ("--queues", f"default,{scenario.RESCUED}")
        workers = [
            self._start("--processes", "1", "-v0", *queues, settings=SETTINGS, **environment)
            for _ in range(2)
        ]
        log = directory / "scenario.log"
        with log.open("w") as file:
            users = [
                subprocess.Popen(
                    [sys.executable, "-m", "tests.chaos.scenario", name],
                    env=self._environment | environment,
                    stdout=file,
                    stderr=file,
                )
                for _ in range(USERS)
            ]
        # They bear what a database raises, and nothing else.
        assert {user.wait(LIMIT) for user in users} <= {0, 137}, log.read_text()
        scenario.heal()
        load.wait_for_the_end(LIMIT)
        load.stop_all(*workers)
        oracle.check(self._ledger, repairs=name == "repair")
        return self._lines("happened" if points else "points")

    def _lines(self, file: str) -> set[str]:
        path = self._ledger.directory / file
        return set(path.read_text().splitlines()) if path.exists() else set()

    def _clear(self) -> None:
        for file in self._ledger.directory.iterdir():
            if not file.name.startswith("worker-"):
                file.unlink()
        for model in reversed(list(apps.get_app_config("tasksets").get_models())):
            model._default_manager.all().delete()


@pytest.fixture
def trials(start: Start, ledger: Ledger, child_environment: dict[str, str]) -> Trials:
    child_environment["TASKSETS_TEST_WORKER_SETTINGS"] = json.dumps(SETTINGS)
    return Trials(start, ledger, child_environment)


def hands(points: Iterable[str], chance: random.Random) -> list[list[str]]:
    """All points, dealt so that those of one hand do not keep each other from being reached."""
    by_role: dict[str, list[str]] = {role: [] for role in IN_A_HAND}
    for point in sorted(points):
        by_role[ROLES.get(re.split("[:/]", point)[0], "user")].append(point)
    dealt: list[list[str]] = []
    for role, names in by_role.items():
        chance.shuffle(names)
        parts = batches(names, IN_A_HAND[role])
        dealt = [[*one, *other] for one, other in zip_longest(dealt, parts, fillvalue=())]
    return dealt


@pytest.mark.experiment("An end, a broken connection and a stop between any two statements")
@pytest.mark.timeout(3600)
def test_whatever_happens_between_two_statements(trials: Trials, report: Report) -> None:
    repair = {point for point in trials.run("repair") if point.startswith("sweep")}
    life = trials.run("life") - repair
    operations = {word for point in life | repair for word in point.split(":")[0].split("/")}
    assert operations >= PROMISED
    assert len(life) >= 40
    chance = scale.generator("failpoints")
    tried = happened = 0
    # What a sweep repairs is in the logs from then on, so that comes last.
    for name, points in (("life", life), ("repair", repair)):
        for action in failpoints.ACTIONS if name == "life" or scale.is_full else ("exit",):
            dealt = hands(points, chance)
            for hand in chance.sample(dealt, min(len(dealt), HANDS)):
                tried += len(hand)
                print(f"{name}: {action} at {hand}")  # noqa: T201  shown if it fails
                happened += len(trials.run(name, hand, action))
    report(
        f"{len(life | repair)} points of {len(operations)} operations; "
        f"{happened} of {tried} failures came about; 0 lost, 0 doubled"
    )
    # Some are not reached every time.
    assert happened > tried * scale.size(0.5, 0.8)
