"""On PostgreSQL a call and the hint that it is there go in one round trip."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, connections, transaction

from django_tasksets import DuplicateId, TaskSet
from django_tasksets.ids import new_id
from django_tasksets.models import SubtaskRecord
from django_tasksets.store import get_store
from django_tasksets.store.private import private_connection
from tests import flow
from tests.tasks import add, noop

psycopg = pytest.importorskip("psycopg")
generators = pytest.importorskip("psycopg.generators")

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="a matter of its protocol"),
]


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that went together with a hint."""
    from django_tasksets.store.roundtrips import execute_both

    found: list[str] = []

    def noting(session: Any, statement: str, values: Any, hint: str) -> None:
        found.append(statement)
        execute_both(session, statement, values, hint)

    monkeypatch.setattr("django_tasksets.store.postgresql.execute_both", noting)
    return found


@pytest.fixture
def hints() -> Iterator[Callable[[], int]]:
    """How many hints have come since it was last asked for."""
    other = private_connection("default")
    with other.cursor() as cursor:
        cursor.execute("LISTEN django_tasksets")
    session = other.connection
    yield lambda: len(list(session.notifies(timeout=0.2)))
    other.close()


def end_session() -> None:
    """As a server that is restarted ends it."""
    connection.ensure_connection()
    other = private_connection("default")
    with other.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(%s, 5000)", [connection.connection.info.backend_pid]
        )
    other.close()


def test_a_call_and_its_hint(
    trips: list[str], hints: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.ensure_connection()
    session, waited = connection.connection, list[Any]()
    wait = session.wait

    def waiting(*arguments: Any) -> Any:
        waited.append(arguments)
        return wait(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(session, "wait", waiting)
        result = add.delay(1, 2)

    assert (len(trips), len(waited), hints()) == (1, 1, 1)
    assert result.status == "READY"


def test_a_set_its_callbacks_and_their_hint(trips: list[str], hints: Callable[[], int]) -> None:
    calls = [add.s(n, n) for n in range(3)]
    result = TaskSet(calls, on_success=noop.si(), on_finish=noop.si()).apply_async()

    assert (len(trips), hints()) == (1, 1)
    assert SubtaskRecord.objects.count() == 5
    assert result.progress().total == 3


def test_nobody_is_told_of_what_cannot_be_claimed(
    trips: list[str], hints: Callable[[], int]
) -> None:
    add.apply_async((1, 2), countdown=60)

    assert (trips, hints()) == ([], 0)


def test_a_transaction_tells_when_it_commits(trips: list[str], hints: Callable[[], int]) -> None:
    with transaction.atomic():
        add.delay(1, 2)
        assert hints() == 0

    assert (trips, hints()) == ([], 1)


def test_an_id_that_is_taken(trips: list[str]) -> None:
    taken = add.delay(1, 2).id

    with pytest.raises(DuplicateId, match=taken):
        add.apply_async((1, 2), task_id=taken)

    assert SubtaskRecord.objects.count() == 1
    assert add.delay(1, 2).status == "READY"
    assert len(trips) == 3


def test_a_hint_that_cannot_be_sent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("django_tasksets.store.postgresql.HINT", "NOTIFY")

    with caplog.at_level(logging.WARNING, "django_tasksets"):
        result = add.delay(1, 2)

    assert result.status == "READY"
    assert "wake-up not sent" in caplog.text


def test_a_server_that_has_gone() -> None:
    end_session()

    with pytest.raises(OperationalError):
        add.delay(1, 2)

    assert add.delay(1, 2).status == "READY"


@pytest.mark.parametrize("inside", [False, True])
def test_one_that_has_gone_is_noticed_before(
    monkeypatch: pytest.MonkeyPatch,
    inside: bool,
) -> None:
    """As CONN_HEALTH_CHECKS asks for."""
    end_session()
    monkeypatch.setattr(connections["default"], "health_check_enabled", True)
    monkeypatch.setattr(connections["default"], "health_check_done", False)
    if inside:
        with transaction.atomic():
            result = add.delay(1, 2)
    else:
        result = add.delay(1, 2)

    assert result.status == "READY"


def test_what_only_the_commit_finds_wrong(trips: list[str]) -> None:
    """That there is such a set is asked when the transaction ends."""
    store = get_store()
    row = flow.new_row(taskset_id=new_id().hex, position=0)

    with pytest.raises(IntegrityError):
        store.insert_and_notify([row])

    assert len(trips) == 1
    assert not SubtaskRecord.objects.exists()
    assert add.delay(1, 2).status == "READY"


def test_what_is_committed_stands_though_the_session_ends_with_the_hint(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def end(pgconn: Any, results: list[Any]) -> Iterator[Any]:
        yield from generators.send(pgconn)
        results += yield from generators.fetch_many(pgconn)
        results += yield from generators.fetch_many(pgconn)
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr("django_tasksets.store.roundtrips._collect", end)
    with caplog.at_level(logging.WARNING, "django_tasksets"):
        result = add.delay(1, 2)

    assert "wake-up not sent" in caplog.text
    monkeypatch.undo()
    assert result.status == "READY"


def test_in_a_pipeline_of_the_callers_own(trips: list[str]) -> None:
    connection.ensure_connection()
    with connection.connection.pipeline():
        result = add.delay(1, 2)

    assert result.status == "READY"
    assert trips == []


def test_an_exception_in_the_middle_costs_the_session_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a task's soft time limit raises one anywhere."""

    def interrupt(*_: object) -> Iterator[None]:
        yield from ()
        raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr("django_tasksets.store.roundtrips._collect", interrupt)
        with pytest.raises(TimeoutError):
            add.delay(1, 2)

    assert add.delay(1, 2).status == "READY"


def test_who_watches_statements_sees_them(trips: list[str], hints: Callable[[], int]) -> None:
    seen: list[str] = []

    def watch(execute: Any, sql: Any, *rest: Any) -> Any:
        seen.append(str(sql))
        return execute(sql, *rest)

    with connection.execute_wrapper(watch):
        add.delay(1, 2)

    assert [sql.split()[0] for sql in seen] == ["INSERT", "NOTIFY"]
    assert (trips, hints()) == ([], 1)


def test_poolers_of_transactions_get_one_statement_at_a_time(
    trips: list[str], hints: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)

    add.delay(1, 2)

    assert (trips, hints()) == ([], 1)
