"""How the admin counts and pages subtasks: by what is counted already, and by positions."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tasksets.admin import paginators
from django_tasksets.ids import new_id
from django_tasksets.models import ErrorGroupRecord, SubtaskRecord, TaskSetRecord
from django_tasksets.statuses import Role
from tests.database.admin_pages import (
    SETS,
    SUBTASKS,
    Page,
    list_url,
    make_callback,
    make_set,
    make_subtask,
    page_url,
    superuser_client,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return superuser_client()


def listed(client, **parameters):
    """The rows of a page, how many there are in all, and the statements that it took."""
    with CaptureQueriesContext(connection) as queries:
        response = client.get(list_url(SUBTASKS), parameters)
    assert response.status_code == 200
    changelist = response.context["cl"]
    statements = [query["sql"] for query in queries if "tasksets_subtaskrecord" in query["sql"]]
    return list(changelist.result_list), changelist.result_count, statements


def positions(rows):
    return [row.position for row in rows]


def test_members_are_paged_by_their_positions(client):
    taskset = make_set(["READY"] * 250)
    make_set(["READY"] * 20)

    first, count, statements = listed(client, taskset=taskset.pk)
    last, _, more = listed(client, taskset=taskset.pk, p=3)

    assert count == 250
    assert positions(first) == list(range(100))
    assert positions(last) == list(range(200, 250))
    for statement in statements + more:
        assert "COUNT(" not in statement.upper()
        assert "OFFSET" not in statement.upper()
    assert len(statements) == 1


def test_the_count_is_the_sets_own(client):
    """Shown by making it wrong: nobody counts rows."""
    taskset = make_set(["SUCCESSFUL"] * 3 + ["READY"])
    TaskSetRecord.objects.filter(pk=taskset.pk).update(
        total=1_000_000, successful=999_000, failed=0, remaining=1_000
    )

    assert listed(client, taskset=taskset.pk)[1] == 1_000_000
    assert listed(client, taskset=taskset.pk, role="members")[1] == 1_000_000
    assert listed(client, taskset=taskset.pk, status="successful")[1] == 999_000
    assert listed(client, taskset=taskset.pk, status="unfinished")[1] == 1_000
    assert listed(client, taskset=taskset.pk, status="ready")[1] == 1


@pytest.mark.parametrize("status", ["successful", "failed", "revoked", "unfinished"])
def test_members_in_one_status_are_counted_by_the_set(client, status):
    wanted = "READY" if status == "unfinished" else status.upper()
    other = "FAILED" if wanted != "FAILED" else "READY"
    taskset = make_set([wanted, other] * 120)

    first, count, statements = listed(client, taskset=taskset.pk, status=status)
    second, _, _ = listed(client, taskset=taskset.pk, status=status, p=2)

    assert count == 120
    assert positions(first) == list(range(0, 200, 2))
    assert positions(second) == list(range(200, 240, 2))
    assert not any("COUNT(" in statement.upper() for statement in statements)


def test_members_of_an_error_group_are_counted_by_the_group(client):
    taskset = make_set(["FAILED"] * 5)
    rows = SubtaskRecord.objects.filter(taskset=taskset, position__lt=2)
    rows.update(error_fingerprint="f")
    ErrorGroupRecord.objects.create(
        taskset=taskset,
        fingerprint="f",
        exception_class="E",
        count=2,
        first_seen_at=timezone.now(),
        last_seen_at=timezone.now(),
        latest_subtask_id=rows[0].pk,
    )

    found, count, statements = listed(client, taskset=taskset.pk, status="failed", error="f")

    assert (positions(found), count) == ([0, 1], 2)
    assert not any("COUNT(" in statement.upper() for statement in statements)


def test_callbacks_are_listed_apart_from_the_members(client):
    taskset = make_set(["SUCCESSFUL"] * 2)
    callback = make_callback(taskset, Role.ON_SUCCESS, "READY")
    alone = make_subtask(None, None, "READY")
    alone.save()

    assert positions(listed(client, taskset=taskset.pk)[0]) == [0, 1]
    rows, count, _ = listed(client, taskset=taskset.pk, role="callbacks")
    assert (rows, count) == ([callback], 1)
    assert listed(client, role="callbacks")[0] == [callback]
    assert len(listed(client, role="members")[0]) == 3
    assert len(listed(client)[0]) == 4


def test_without_a_set_the_newest_come_first_and_are_counted_up_to_a_cap(client, monkeypatch):
    monkeypatch.setattr(paginators, "CAP", 130)
    rows = [make_subtask(None, None, "READY", id=new_id()) for _ in range(140)]
    SubtaskRecord.objects.bulk_create(rows)

    response = client.get(list_url(SUBTASKS))
    page = Page(response)
    last = client.get(list_url(SUBTASKS), {"p": 2}).context["cl"]

    assert response.context["cl"].result_count == 130
    assert "More than 130 match" in page.text
    keys = [row.pk for row in response.context["cl"].result_list]
    assert keys == sorted((row.pk for row in rows), reverse=True)[:100]
    assert len(last.result_list) == 30
    assert "More than" not in Page(client.get(list_url(SUBTASKS), {"status": "failed"})).text


def test_lists_leave_out_the_columns_that_may_be_long(client):
    taskset = make_set(["FAILED"] * 3)

    for parameters in ({}, {"taskset": taskset.pk}):
        statements = listed(client, **parameters)[2]
        (statement,) = [each for each in statements if "COUNT(" not in each.upper()]
        for column in ("args", "kwargs", "errors", "return_value", "metadata", "saved_ids"):
            assert f'"{column}"' not in statement
            assert f"`{column}`" not in statement


def test_a_subtask_is_found_by_its_id_and_by_its_position(client):
    taskset = make_set(["READY"] * 20)
    row = SubtaskRecord.objects.get(taskset=taskset, position=7)

    assert listed(client, q=str(row.pk))[0] == [row]
    assert listed(client, q=row.pk.hex, taskset=taskset.pk)[0] == [row]
    assert listed(client, q="7", taskset=taskset.pk)[0] == [row]
    assert listed(client, q="#7", taskset=taskset.pk)[0] == [row]
    assert listed(client, q="7")[0] == []
    assert listed(client, q="add")[0] == []
    assert listed(client, q="9" * 30, taskset=taskset.pk)[0] == []


def test_a_list_of_a_set_shows_its_bar_and_its_counts(client):
    taskset = make_set(["READY", "FAILED"], name="Resize")

    page = Page(client.get(list_url(SUBTASKS), {"taskset": str(taskset.pk)}))

    (bar,) = page.all("progress")
    assert (bar["max"], bar["value"]) == ("2", "1")
    assert page_url(SETS, taskset.pk) in page.links()
    assert f"{list_url(SUBTASKS)}?taskset={taskset.pk}&status=failed" in page.links()


@pytest.mark.parametrize("parameter", ["taskset", "worker"])
def test_an_impossible_id_is_taken_off_again(client, parameter):
    response = client.get(list_url(SUBTASKS), {parameter: "nonsense"})

    assert response.status_code == 302
    assert response.url.endswith("?e=1")


def test_an_unknown_set_has_no_members(client):
    make_set(["READY"])

    assert listed(client, taskset=new_id())[:2] == ([], 0)


def test_a_page_that_is_not_there_is_taken_off_again(client):
    taskset = make_set(["READY"] * 120)

    response = client.get(list_url(SUBTASKS), {"taskset": str(taskset.pk), "p": 3})

    assert response.status_code == 302
