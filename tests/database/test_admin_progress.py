"""What the bars of the admin ask for."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_tasksets.ids import new_id
from django_tasksets.models import TaskSetRecord
from django_tasksets.statuses import Role
from tests.database.admin_pages import (
    ATTACK,
    make_callback,
    make_set,
    make_worker,
    signed_in,
    superuser_client,
    user_with,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return superuser_client()


def ask(client, *keys, headers=None, **parameters):
    url = reverse("admin:tasksets_progress")
    return client.get(url, {"id": [str(key) for key in keys], **parameters}, headers=headers)


def test_it_tells_how_a_set_stands(client):
    taskset = make_set(["SUCCESSFUL", "FAILED", "READY", "RUNNING"])

    answer = ask(client, taskset.pk).json()

    told = answer["sets"][str(taskset.pk)]
    assert told["status"] == {"key": "running", "label": "Running", "icon": "◑"}
    assert (told["value"], told["max"], told["live"]) == (2, 4, True)
    assert told["fields"]["summary"] == "50% – 2 of 4, 1 failed"
    assert told["fields"]["failed"] == "1"
    assert told["can"] == {
        "pause": True,
        "resume": False,
        "retry": True,
        "rerun": True,
        "revoke": True,
        "forget": False,
        "delete": False,
    }
    assert answer["poll"] == 1000


def test_many_sets_take_one_question_and_one_query(client):
    keys = [make_set(["READY"]).pk for _ in range(40)]
    ask(client, *keys)

    with CaptureQueriesContext(connection) as queries:
        answer = ask(client, *keys).json()

    assert set(answer["sets"]) == {str(key) for key in keys}
    ours = [query for query in queries if "tasksets_" in query["sql"]]
    assert len(ours) == 2  # the sets, and whether a worker is alive
    assert len(queries) == 4  # the session, the user


def test_that_nothing_goes_on_without_a_worker_is_told(client):
    taskset = make_set(["READY"])
    assert ask(client, taskset.pk).json()["deserted"] is True
    etag = ask(client, taskset.pk)["ETag"]
    url = reverse("admin:tasksets_tasksetrecord_change", args=[taskset.pk])
    hidden = "data-tasksets-deserted hidden"
    assert hidden not in client.get(url).content.decode()

    make_worker()

    assert hidden in client.get(url).content.decode()

    answer = ask(client, taskset.pk, HTTP_IF_NONE_MATCH=etag)
    assert (answer.status_code, answer.json()["deserted"]) == (200, False)


def test_callbacks_are_told_when_they_are_asked_for(client):
    taskset = make_set(["SUCCESSFUL"])
    callback = make_callback(taskset, Role.ON_SUCCESS, "RUNNING")

    assert ask(client, taskset.pk).json()["subtasks"] == {}
    answer = ask(client, taskset.pk, callbacks="1").json()

    assert answer["subtasks"][str(callback.pk)]["key"] == "running"
    assert answer["poll"] == 1000


def test_once_all_is_finished_nobody_needs_to_ask_again(client):
    taskset = make_set(["SUCCESSFUL"])
    make_callback(taskset, Role.ON_SUCCESS, "SUCCESSFUL")

    assert ask(client, taskset.pk, callbacks="1").json()["poll"] is None


@pytest.mark.parametrize(
    ("age", "columns", "poll"),
    [
        (timedelta(seconds=5), {}, 1_000),
        (timedelta(minutes=5), {}, 2_000),
        (timedelta(minutes=30), {}, 5_000),
        (timedelta(days=2), {}, 10_000),
        (timedelta(seconds=5), {"paused_at": timezone.now()}, 5_000),
        (timedelta(seconds=5), {"sealed_at": None}, 5_000),
    ],
)
def test_long_sets_are_asked_about_less_often(client, age, columns, poll):
    taskset = make_set(["READY"], enqueued_at=timezone.now() - age, **columns)

    assert ask(client, taskset.pk).json()["poll"] == poll


def test_nothing_is_said_again(client):
    taskset = make_set(["READY", "READY"])
    first = ask(client, taskset.pk)

    again = ask(client, taskset.pk, headers={"if-none-match": first["ETag"]})
    TaskSetRecord.objects.filter(pk=taskset.pk).update(remaining=1, successful=1)
    later = ask(client, taskset.pk, headers={"if-none-match": first["ETag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert again["ETag"] == first["ETag"]
    assert later.status_code == 200
    assert later["ETag"] != first["ETag"]
    assert first["Cache-Control"] == "private, no-cache"


def test_another_user_or_language_is_another_answer(client):
    taskset = make_set(["READY"])
    first = ask(client, taskset.pk)

    assert ask(superuser_client(), taskset.pk)["ETag"] != first["ETag"]
    german = ask(client, taskset.pk, headers={"accept-language": "de"})
    assert german["ETag"] != first["ETag"]
    assert "Accept-Language" in german["Vary"]
    assert "Cookie" in german["Vary"]


def test_a_callback_that_moves_is_news(client):
    taskset = make_set(["SUCCESSFUL"])
    callback = make_callback(taskset, Role.ON_SUCCESS, "READY")
    first = ask(client, taskset.pk, callbacks="1")
    callback.status = "RUNNING"
    callback.save()

    later = ask(client, taskset.pk, callbacks="1", headers={"if-none-match": first["ETag"]})

    assert later.status_code == 200


def test_unknown_and_impossible_ids_are_left_out(client):
    taskset = make_set(["READY"])

    assert set(ask(client, taskset.pk, new_id(), "nonsense").json()["sets"]) == {str(taskset.pk)}
    assert ask(client).json() == {
        "sets": {},
        "subtasks": {},
        "poll": None,
        "deserted": False,
    }


def test_it_is_for_those_who_may_view_sets(client):
    taskset = make_set(["READY"])

    assert ask(signed_in(user_with("view_tasksetrecord")), taskset.pk).status_code == 200
    assert ask(signed_in(user_with("view_subtaskrecord")), taskset.pk).status_code == 403
    # By a status, not by a way to sign in: the script is told to stop.
    assert ask(Client(), taskset.pk).status_code == 403


def test_it_is_only_asked(client):
    assert client.post(reverse("admin:tasksets_progress")).status_code == 405


def test_no_value_of_a_subtask_is_told(client):
    taskset = make_set(["FAILED"], name=ATTACK, metadata=json.dumps({"secret": "s3cr3t"}))

    text = ask(client, taskset.pk, callbacks="1").content.decode()

    assert "s3cr3t" not in text
    assert "<img" not in text
