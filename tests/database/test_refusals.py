"""What the database will not store ends its own subtask, and keeps nobody else's from ending."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from django_tasksets.recording import record
from django_tasksets.store import get_store
from tests import flow

pytestmark = pytest.mark.django_db(transaction=True)

COLUMN = "tasksets_subtaskrecord MODIFY reason varchar(200) {} DEFAULT '' NOT NULL"


@pytest.fixture
def _latin_reasons() -> Iterator[None]:
    """A table of a database that was made long ago."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE " + COLUMN.format("CHARACTER SET latin1"))
        yield
        cursor.execute("ALTER TABLE " + COLUMN.format("CHARACTER SET utf8mb4"))


def check_refusal(reason: str) -> None:
    store = get_store()
    worker_id = flow.new_worker(store)
    taskset = flow.make_set(store, 3)
    first, second, third = flow.claim_members(store, worker_id, taskset)
    bad = flow.outcome(second, "FAILED", reason=reason, error_message=reason)

    recorded = record(store, worker_id, [flow.outcome(first), bad, flow.outcome(third)])

    assert len(recorded.written) == 3
    assert recorded.parked == recorded.late == []
    refused = flow.fetch(second.id)
    assert (refused.status, refused.reason) == ("FAILED", "the database refused the result")
    assert refused.get_errors()[0]["exception_class"].startswith("django.db.utils.")
    assert flow.counts_of(taskset) == (3, 0, 2, 1, 0)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="takes text of any length")
def test_what_is_too_long() -> None:
    check_refusal("x" * 300)


@pytest.mark.skipif(connection.vendor != "mysql", reason="has character sets for columns")
@pytest.mark.usefixtures("_latin_reasons")
def test_characters_that_the_table_does_not_have() -> None:
    """The driver reports them as an operational error, like a server that is gone."""
    check_refusal("no \N{SNOWMAN} in here")
