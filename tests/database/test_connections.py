"""Connections of bookkeeping, and what fails once a commit is made."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction

from django_tasksets.store import get_store
from django_tasksets.store.private import TIMEOUTS, private_connection
from django_tasksets.worker.connections import Apart, dedicated
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


@pytest.mark.skipif(connection.vendor != "sqlite", reason="elsewhere a server wakes workers")
def test_who_has_written_makes_way_for_who_was_woken_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    yielded: list[bool] = []
    monkeypatch.setattr(
        "os.sched_yield", lambda: yielded.append(connection.in_atomic_block), raising=False
    )

    noop.delay()
    with transaction.atomic():
        noop.delay()
        noop.delay()
        assert len(yielded) == 1

    assert yielded == [False, False]


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


def test_bookkeeping_commits_though_the_project_does_not_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)
    assert private_connection("default").settings_dict["AUTOCOMMIT"] is True


# What callbacks are given


def ask() -> Any:
    """Which connection answers."""
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    return connections["default"].connection


def test_it_is_read_on_one_connection_that_tasks_never_have() -> None:
    reads, found = Apart("default"), list[Any]()
    theirs = ask()
    try:
        found.append(reads(ask))
        thread = threading.Thread(target=lambda: found.append(reads(ask)))
        thread.start()
        thread.join()
        assert found[0] is found[1] is not theirs
        assert ask() is theirs
    finally:
        reads(lambda: connections["default"].close())


@pytest.mark.parametrize("failures", [1, 2])
def test_one_that_has_gone_is_replaced_once(failures: int) -> None:
    reads, tries = Apart("default"), list[Any]()

    def fail_at_first() -> Any:
        tries.append(connections["default"])
        if len(tries) <= failures:
            raise OperationalError("the server has gone away")
        return ask()

    theirs = connections["default"]
    try:
        first = reads(ask)
        if failures == 1:
            assert reads(fail_at_first) is not first
        else:
            with pytest.raises(OperationalError, match="gone away"):
                reads(fail_at_first)
        assert len({id(one) for one in tries}) == len(tries) == 2
        assert connections["default"] is theirs
    finally:
        reads(lambda: connections["default"].close())


def test_errors_that_are_not_the_connections_are_raised_at_once() -> None:
    reads, tries = Apart("default"), list[int]()

    def fail() -> None:
        tries.append(1)
        raise ValueError("broken")

    try:
        reads(ask)
        with pytest.raises(ValueError, match="broken"):
            reads(fail)
        assert len(tries) == 1
    finally:
        reads(lambda: connections["default"].close())
