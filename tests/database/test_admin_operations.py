"""What the admin's buttons and actions do, what they tell, and what is logged of it."""

from __future__ import annotations

import uuid

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_tasksets import TaskSet
from django_tasksets.models import ErrorGroupRecord, SubtaskRecord, TaskSetRecord
from django_tasksets.statuses import Role
from django_tasksets.testing import run_subtasks
from tests.database.admin_pages import (
    SETS,
    SUBTASKS,
    list_url,
    make_callback,
    make_set,
    make_subtask,
    messages_of,
    page_url,
    superuser_client,
)
from tests.tasks import add, fail

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return superuser_client()


def press(client, taskset_id, name, **data):
    """Press a button on a set's page; what the user is told."""
    response = client.post(page_url(SETS, taskset_id, name), data, follow=True)
    assert response.status_code == 200
    return messages_of(response)


def press_for(client, subtask_id, name, **data):
    response = client.post(page_url(SUBTASKS, subtask_id, name), data, follow=True)
    assert response.status_code == 200
    return messages_of(response)


def act(client, model, name, keys, **data):
    """Do it to the selected rows of a list."""
    data = {"action": f"{name}_selected", "_selected_action": keys, "index": "0"} | data
    if name in ("revoke", "forget", "delete"):
        data = {"confirmed": "1"} | data
        del data["index"]
    response = client.post(data.pop("url", list_url(model)), data, follow=True)
    assert response.status_code == 200
    return messages_of(response)


def applied(*calls, **options):
    """A set that was applied, as the API does it."""
    return uuid.UUID(TaskSet(list(calls), **options).apply_async().taskset_id)


def counts(key):
    row = TaskSetRecord.objects.get(pk=key)
    members = SubtaskRecord.objects.filter(taskset_id=key, position__gte=0)
    statuses = list(members.values_list("status", flat=True))
    assert row.total == len(statuses)
    assert row.successful == statuses.count("SUCCESSFUL")
    assert row.failed == statuses.count("FAILED")
    assert row.revoked == statuses.count("REVOKED")
    return row.status, row.remaining, row.successful, row.failed, row.revoked


def log_of(record):
    return [
        (entry.action_flag, entry.change_message)
        for entry in LogEntry.objects.filter(object_id=str(record)).order_by("pk")
    ]


# Sets


def test_pause_and_resume(client):
    key = applied(add.subtask((1, 1)), add.subtask((2, 2)))

    assert press(client, key, "pause") == ["1 task set paused."]
    assert run_subtasks() == 0
    assert press(client, key, "pause") == [
        "Nothing was paused: only what runs, and is not paused yet, can be."
    ]
    assert press(client, key, "resume") == ["1 task set resumed."]
    assert press(client, key, "resume") == ["Nothing was resumed: only what is paused can be."]
    assert run_subtasks() == 2
    assert counts(key) == ("SUCCESSFUL", 0, 2, 0, 0)
    assert [flag for flag, _ in log_of(key)] == [CHANGE] * 4
    assert log_of(key)[0][1] == "pause: 1 task set paused."


def test_revoke_says_how_many_and_keeps_the_reason(client):
    key = applied(*[add.subtask((n, n)) for n in range(5)])
    run_subtasks(limit=2)

    assert press(client, key, "revoke", reason="wrong prices") == ["3 subtasks revoked."]
    assert counts(key) == ("REVOKED", 0, 2, 0, 3)
    reasons = SubtaskRecord.objects.filter(taskset_id=key, status="REVOKED")
    assert set(reasons.values_list("reason", flat=True)) == {"wrong prices"}
    assert press(client, key, "revoke") == ["Nothing was revoked: only what runs can be."]
    assert log_of(key)[0] == (CHANGE, "revoke: 3 subtasks revoked.")


def test_revoke_without_a_reason_tells_who(client):
    key = applied(add.subtask((1, 1)))

    press(client, key, "revoke", reason="  ")

    user = client.session["_auth_user_id"]
    assert LogEntry.objects.get().user_id == int(user)
    assert SubtaskRecord.objects.get().reason.startswith("revoked by s")


def test_retry_failed_takes_all_back(client):
    key = applied(fail.subtask(("a",)), fail.subtask(("b",)), add.subtask((1, 1)))
    run_subtasks()
    assert counts(key) == ("FAILED", 0, 1, 2, 0)

    assert press(client, key, "retry") == ["2 subtasks retried."]
    assert counts(key) == ("RUNNING", 2, 1, 0, 0)
    assert run_subtasks() == 2
    assert counts(key) == ("FAILED", 0, 1, 2, 0)
    assert log_of(key) == [(CHANGE, "retry: 2 subtasks retried.")]


def test_one_kind_of_error_is_retried_by_itself(client):
    key = applied(*[fail.subtask()] * 3, add.subtask(("x", 1)))
    run_subtasks()
    group = ErrorGroupRecord.objects.get(taskset_id=key, exception_class="builtins.TypeError")

    assert press(client, key, "retry", fingerprint=group.fingerprint) == ["1 subtask retried."]
    assert counts(key) == ("RUNNING", 1, 0, 3, 0)
    assert press(client, key, "retry", fingerprint=group.fingerprint) == [
        "Nothing was retried: no subtask of it has failed or been revoked."
    ]


def test_run_again_leads_to_the_new_set(client):
    key = applied(add.subtask((1, 1)), name="Sums")
    run_subtasks()

    response = client.post(page_url(SETS, key, "rerun"), follow=True)

    new = TaskSetRecord.objects.get(origin_id=key)
    assert response.redirect_chain[-1][0] == page_url(SETS, new.pk)
    assert messages_of(response) == ["1 task set run again."]
    assert log_of(key) == [(CHANGE, f"rerun: 1 task set run again. {new.pk}")]
    assert run_subtasks() == 1
    assert counts(new.pk) == ("SUCCESSFUL", 0, 1, 0, 0)


def test_delete_takes_everything_and_no_collector(client):
    key = applied(*[add.subtask((n, n)) for n in range(30)])
    run_subtasks()

    with CaptureQueriesContext(connection) as queries:
        response = client.post(page_url(SETS, key, "delete"), follow=True)

    assert messages_of(response) == ["1 task set deleted."]
    assert response.redirect_chain[-1][0] == list_url(SETS)
    assert not TaskSetRecord.objects.exists()
    assert not SubtaskRecord.objects.exists()
    assert [flag for flag, _ in log_of(key)] == [DELETION]
    assert len(queries) < 30


def test_forgetting_asks_first_and_keeps_the_counts(client):
    key = applied(add.subtask((1, 1)), fail.subtask())

    assert press(client, key, "forget") == ["The set is unfinished; revoke it or wait for its end."]
    run_subtasks()
    assert (
        "messages of errors and counts stay"
        in client.get(page_url(SETS, key, "forget")).content.decode()
    )
    assert SubtaskRecord.objects.filter(return_value="2").exists()
    assert press(client, key, "forget") == ["1 task set’s results forgotten."]
    assert not SubtaskRecord.objects.exclude(return_value=None, errors="").exists()
    assert counts(key) == ("FAILED", 0, 1, 1, 0)
    assert log_of(key)[-1] == (CHANGE, "forget: 1 task set’s results forgotten.")


def test_an_unfinished_set_is_not_deleted(client):
    key = applied(add.subtask((1, 1)))

    (told,) = press(client, key, "delete")

    assert told == "The set is unfinished; revoke it or wait for its end."
    assert counts(key) == ("RUNNING", 1, 0, 0, 0)
    assert log_of(key) == [(CHANGE, "delete: Nothing was deleted.")]


def test_a_deed_for_a_set_that_is_gone_leads_to_the_index(client):
    response = client.post(page_url(SETS, uuid.uuid4(), "retry"), follow=True)

    assert "doesn’t exist" in messages_of(response)[0]


# Several sets


def test_actions_reach_the_selected_sets_and_tell_what_was_skipped(client):
    running = [applied(add.subtask((1, 1)), add.subtask((2, 2))) for _ in range(2)]
    other = applied(add.subtask((3, 3)))
    done = make_set(["SUCCESSFUL"]).pk

    told = act(client, SETS, "revoke", [*running, done], reason="r")

    assert told == ["2 task sets revoked, 4 subtasks revoked, 1 task set skipped."]
    assert [counts(key)[0] for key in running] == ["REVOKED", "REVOKED"]
    assert counts(other)[0] == "RUNNING"
    assert [log_of(key) for key in running] == [[(CHANGE, "revoke: 2 subtasks revoked.")]] * 2


def test_actions_reach_all_sets_that_match_and_no_others(client):
    keys = [applied(add.subtask((1, 1))) for _ in range(3)]
    paused = make_set(["WAITING"], paused_at="2026-11-23T00:00Z")

    url = f"{list_url(SETS)}?status=running"
    told = act(client, SETS, "pause", keys[:1], select_across="1", url=url)

    assert told == ["3 task sets paused."]
    assert log_of(paused.pk) == []


def test_deleting_asks_first_and_tells_what_was_refused(client):
    done, running = make_set(["SUCCESSFUL"]), applied(add.subtask((1, 1)))
    data = {"action": "delete_selected", "_selected_action": [done.pk, running], "index": "0"}

    asked = client.post(list_url(SETS), data)

    assert "For good." in asked.content.decode()
    assert TaskSetRecord.objects.count() == 2
    told = act(client, SETS, "delete", [done.pk, running])
    refused = "The set is unfinished; revoke it or wait for its end."
    assert told == [f"1 task set deleted, 1 task set skipped. {refused}"]
    assert [record.pk for record in TaskSetRecord.objects.all()] == [running]


def test_retrying_and_running_again_many(client):
    keys = [applied(fail.subtask(), add.subtask((1, 1))) for _ in range(2)]
    run_subtasks()

    assert act(client, SETS, "retry", keys) == ["2 task sets retried, 2 subtasks retried."]
    assert act(client, SETS, "rerun", keys) == ["2 task sets run again."]
    assert TaskSetRecord.objects.count() == 4


# Subtasks


def test_a_subtask_is_retried_and_its_set_counts_it(client):
    key = applied(fail.subtask(), add.subtask((1, 1)))
    run_subtasks()
    row = SubtaskRecord.objects.get(taskset_id=key, position=0)

    assert press_for(client, row.pk, "retry") == ["1 subtask retried."]
    assert counts(key) == ("RUNNING", 1, 1, 0, 0)
    assert log_of(row.pk) == [(CHANGE, "retry: 1 subtask retried.")]
    assert press_for(client, row.pk, "retry") == [
        "Nothing was retried: only what has failed or been revoked can be."
    ]


def test_a_subtask_is_revoked_with_a_reason(client):
    row = make_subtask(None, None, "READY")
    row.save()

    asked = client.get(page_url(SUBTASKS, row.pk, "revoke"))
    assert "have not begun are revoked now" in asked.content.decode()
    assert press_for(client, row.pk, "revoke", reason="no") == ["1 subtask revoked."]
    row.refresh_from_db()
    assert (row.status, row.reason) == ("REVOKED", "no")


def test_a_callback_is_run_again_by_itself(client):
    taskset = make_set(["SUCCESSFUL"])
    row = make_callback(taskset, Role.ON_FINISH, "FAILED")

    assert press_for(client, row.pk, "retry") == ["1 subtask retried."]
    row.refresh_from_db()
    assert row.status == "READY"
    taskset.refresh_from_db()
    assert taskset.status == "SUCCESSFUL"


def test_selected_subtasks_are_retried_and_their_sets_history_says_so(client):
    key = applied(*[fail.subtask()] * 4, add.subtask((1, 1)))
    run_subtasks()
    rows = list(SubtaskRecord.objects.filter(taskset_id=key).order_by("position"))

    told = act(client, SUBTASKS, "retry", [row.pk for row in rows[2:]])

    assert told == ["2 subtasks retried, 1 subtask skipped."]
    assert counts(key) == ("RUNNING", 2, 1, 2, 0)
    assert log_of(key) == [(CHANGE, "retry: 2 subtasks retried, 1 subtask skipped.")]


def test_all_subtasks_that_match_are_revoked(client):
    key = applied(*[add.subtask((n, n)) for n in range(620)])
    alone = make_subtask(None, None, "READY")
    alone.save()
    first = SubtaskRecord.objects.filter(taskset_id=key).values_list("pk", flat=True)[:1]

    url = f"{list_url(SUBTASKS)}?taskset={key}&status=unfinished"
    told = act(client, SUBTASKS, "revoke", list(first), select_across="1", url=url)

    assert told == ["620 subtasks revoked."]
    assert counts(key) == ("REVOKED", 0, 0, 0, 620)
    assert log_of(key) == [(CHANGE, "revoke: 620 subtasks revoked.")]
    alone.refresh_from_db()
    assert alone.status == "READY"


def test_revoking_subtasks_asks_first(client):
    key = applied(*[add.subtask((n, n)) for n in range(30)])
    keys = list(SubtaskRecord.objects.filter(taskset_id=key).values_list("pk", flat=True))
    data = {"action": "revoke_selected", "_selected_action": keys, "index": "0"}

    asked = client.post(list_url(SUBTASKS), data)

    html = asked.content.decode()
    assert "and 20 more" in html
    assert html.count('name="_selected_action"') == 30
    assert counts(key)[1] == 30


def test_subtasks_of_no_set_have_a_history_of_their_own(client):
    rows = [make_subtask(None, None, "FAILED") for _ in range(2)]
    SubtaskRecord.objects.bulk_create(rows)

    act(client, SUBTASKS, "retry", [row.pk for row in rows])

    assert [log_of(row.pk) for row in rows] == [[(CHANGE, "retry: 2 subtasks retried.")]] * 2
