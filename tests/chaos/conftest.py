"""Which experiments are made here, and what they need."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Final

import pytest
from django.db import connection

from tests import services
from tests.chaos import scale
from tests.chaos.server import ThrowAwayServer, given
from tests.workers.fixtures import ledger as ledger
from tests.workers.fixtures import start as start

Report = Callable[[str], None]

_began: Final = time.monotonic()


def databases_of(item: pytest.Item) -> tuple[str, ...]:
    """On which databases the experiment can be made."""
    marker = item.get_closest_marker("experiment")
    assert marker is not None, f"{item.nodeid} is not marked as an experiment"
    return tuple(marker.kwargs.get("on", services.DATABASES))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what belongs to other databases; in chance's order where time may run out."""
    database = os.environ.get(services.DATABASE, "sqlite")
    share = os.environ.get(scale.SHARE)
    ours = [item for item in items if "chaos" in item.path.parts]
    left_out = []
    for number, item in enumerate(ours):
        chosen = databases_of(item)
        if share is not None:
            mine, shares = map(int, share.split("/"))
            turn, whose = divmod(number, shares)
            chosen = (chosen[turn % len(chosen)],) if whose == mine else ()
        if database not in chosen:
            left_out.append(item)
    config.hook.pytest_deselected(items=left_out)
    rest = [item for item in items if item not in left_out]
    if scale.MINUTES in os.environ:
        random.Random(scale.seed).shuffle(rest)
    items[:] = rest


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = float(os.environ.get(scale.MINUTES, "inf"))
    if "chaos" in item.path.parts and time.monotonic() - _began > 60 * minutes:
        pytest.skip("no time is left")


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Takes what an experiment has measured, for the table of all of them."""
    (title,) = request.node.get_closest_marker("experiment").args
    request.node.user_properties.append(("experiment", title))

    def report(figures: str) -> None:
        request.node.user_properties.append(("figures", figures))
        print(f"\n{connection.vendor}: {title}: {figures} (seed {scale.seed})")  # noqa: T201

    return report


@pytest.fixture
def server() -> ThrowAwayServer:
    """A server that this test may break."""
    server = given()
    if server is None:
        pytest.fail("there is no server to be broken; `python3 tests` starts one", pytrace=False)
    return server
