"""Connections of bookkeeping, and what fails once a commit is made."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from django.db import OperationalError, connection, connections

from django_tasksets.store import get_store
from django_tasksets.store.private import TIMEOUTS, private_connection
from django_tasksets.worker.connections import dedicated
from tests.tasks import noop

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_was_committed_stands_though_nobody_can_be_woken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(queues: Iterable[str]) -> None:
        raise OperationalError("the connection is cut")

    store = get_store()
    monkeypatch.setattr(store, "can_notify", lambda: True)
    monkeypatch.setattr(store, "notify", fail)

    assert noop.delay().status == "READY"


def test_no_silence_lasts_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the project says stands."""
    options = private_connection("default").settings_dict["OPTIONS"]
    expected = TIMEOUTS.get(connection.vendor, {})
    assert options.items() >= expected.items()

    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "connect_timeout", 3)
    assert private_connection("default").settings_dict["OPTIONS"]["connect_timeout"] == 3


def test_a_transaction_out_of_reach_ends_with_the_lease() -> None:
    asked = {
        "postgresql": "SHOW idle_in_transaction_session_timeout",
        "mysql": "SELECT @@idle_transaction_timeout",
    }
    if connection.vendor not in asked or not getattr(connection, "mysql_is_mariadb", True):
        pytest.skip("this database has no such limit")
    with dedicated(get_store()), connections["default"].cursor() as cursor:
        cursor.execute(asked[connection.vendor])
        assert cursor.fetchone() in [("1min",), (60,)]
