"""Who may see and do what in the admin."""

from __future__ import annotations

import json

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.test import Client

from django_tasksets.models import ErrorGroupRecord, SubtaskRecord, TaskSetRecord, WorkerRecord
from tests.database.admin_pages import (
    SETS,
    SUBTASKS,
    WORKERS,
    Page,
    list_url,
    make_set,
    make_subtask,
    make_worker,
    page_url,
    signed_in,
    superuser_client,
    user_with,
)

pytestmark = pytest.mark.django_db

VIEW = ("view_tasksetrecord", "view_subtaskrecord", "view_workerrecord")
# What each button takes.
BUTTONS = {
    (SETS, "pause"): "pause_tasksetrecord",
    (SETS, "resume"): "pause_tasksetrecord",
    (SETS, "retry"): "retry_tasksetrecord",
    (SETS, "rerun"): "rerun_tasksetrecord",
    (SETS, "revoke"): "revoke_tasksetrecord",
    (SETS, "forget"): "delete_tasksetrecord",
    (SETS, "delete"): "delete_tasksetrecord",
    (SUBTASKS, "retry"): "retry_subtaskrecord",
    (SUBTASKS, "revoke"): "revoke_subtaskrecord",
}
ROLES = sorted(set(BUTTONS.values()))
SECRET = "s3cr3t-value"


def everything():
    """All rows, to see whether something has changed."""
    models = (TaskSetRecord, SubtaskRecord, WorkerRecord, ErrorGroupRecord, LogEntry)
    return [list(model._default_manager.order_by("pk").values()) for model in models]


@pytest.fixture
def taskset():
    return make_set(["FAILED", "READY", "REVOKED"], name="Resize")


def target(model, taskset):
    return taskset.pk if model == SETS else SubtaskRecord.objects.filter(taskset=taskset).first().pk


@pytest.mark.parametrize(("model", "name"), BUTTONS)
@pytest.mark.parametrize("role", [*ROLES, "nothing more"])
def test_a_button_works_for_those_with_its_permission_only(role, model, name, taskset):
    granted = VIEW if role == "nothing more" else (*VIEW, role)
    client = signed_in(user_with(*granted))
    allowed = role == BUTTONS[model, name]
    before = everything()
    url = page_url(model, target(model, taskset), name)

    page = Page(client.get(page_url(model, target(model, taskset))))
    response = client.post(url)

    assert (url in page.posts() | page.links()) == allowed
    assert response.status_code == (302 if allowed else 403)
    if not allowed:
        assert everything() == before


@pytest.mark.parametrize(("model", "name"), BUTTONS)
def test_without_the_view_permission_the_other_is_worth_nothing(model, name, taskset):
    client = signed_in(user_with(BUTTONS[model, name]))
    before = everything()

    assert client.post(page_url(model, target(model, taskset), name)).status_code == 403
    assert everything() == before


@pytest.mark.parametrize(("model", "name"), BUTTONS)
def test_get_changes_nothing(model, name, taskset):
    client = superuser_client()
    before = everything()

    response = client.get(page_url(model, target(model, taskset), name), {"confirmed": "1"})

    assert response.status_code == (200 if name in ("revoke", "forget", "delete") else 405)
    assert everything() == before


@pytest.mark.parametrize(("model", "name"), BUTTONS)
def test_a_post_from_another_site_is_refused(model, name, taskset):
    user = get_user_model().objects.create_superuser("root")
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    before = everything()

    assert client.post(page_url(model, target(model, taskset), name)).status_code == 403
    assert everything() == before


@pytest.mark.parametrize(("model", "name"), BUTTONS)
def test_strangers_are_asked_to_sign_in(model, name, taskset):
    before = everything()

    response = Client().post(page_url(model, target(model, taskset), name))

    assert response.status_code == 302
    assert "/login/" in response.url
    assert everything() == before


@pytest.mark.parametrize(("model", "name"), BUTTONS)
def test_actions_are_offered_to_those_who_may(model, name, taskset):
    client = signed_in(user_with(*VIEW, BUTTONS[model, name]))

    response = client.get(list_url(model))

    offered = {each for each, _ in response.context["action_form"].fields["action"].choices if each}
    mine = {each for m, each in BUTTONS if (m, BUTTONS[m, each]) == (model, BUTTONS[model, name])}
    assert offered == {f"{each}_selected" for each in mine}


def test_an_action_that_was_not_offered_does_nothing(taskset):
    client = signed_in(user_with(*VIEW, "retry_tasksetrecord"))
    before = everything()

    client.post(
        list_url(SETS),
        {"action": "delete_selected", "_selected_action": [taskset.pk], "confirmed": "1"},
    )
    client.post(
        list_url(SETS), {"action": "pause_selected", "_selected_action": [taskset.pk], "index": "0"}
    )

    assert everything() == before


@pytest.mark.parametrize("model", [SETS, SUBTASKS, WORKERS])
def test_no_row_can_be_added_changed_or_deleted_by_a_form(model, taskset):
    worker = make_worker()
    client = superuser_client()
    key = worker.pk if model == WORKERS else target(model, taskset)
    before = everything()

    assert client.get(f"{list_url(model)}add/").status_code == 403
    assert client.post(page_url(model, key), {"name": "x", "status": "FAILED"}).status_code == 403
    if model != SETS:
        assert client.post(f"{list_url(model)}{key}/delete/", {"post": "yes"}).status_code == 403
    assert client.post(
        list_url(model), {"action": "delete_selected", "_selected_action": [key], "post": "yes"}
    ).status_code in (200, 302)
    assert everything() == before


@pytest.mark.parametrize("model", [SETS, SUBTASKS, WORKERS])
def test_pages_are_for_those_who_may_view_them(model, taskset):
    worker = make_worker()
    key = worker.pk if model == WORKERS else target(model, taskset)
    others = [name for name in VIEW if model not in name]
    client = signed_in(user_with(*others))

    assert client.get(list_url(model)).status_code == 403
    assert client.get(page_url(model, key)).status_code == 403


def test_who_may_not_view_subtasks_sees_the_set_without_them(taskset):
    client = signed_in(user_with("view_tasksetrecord"))

    for url in (list_url(SETS), page_url(SETS, taskset.pk)):
        page = Page(client.get(url))
        assert page.status == 200
        assert [link for link in page.links() if SUBTASKS in link] == []
        assert "tests.tasks.add" not in page.text
        assert "2 of 3" in page.text


@pytest.fixture
def secret():
    line = {"exception_class": "ValueError", "message": "shown", "traceback": SECRET}
    row = make_subtask(
        None,
        None,
        "FAILED",
        args=json.dumps([SECRET]),
        kwargs=json.dumps({"k": SECRET}),
        return_value=json.dumps(SECRET),
        options=json.dumps({"k": SECRET}),
        links=json.dumps({"link": [SECRET]}),
        errors=json.dumps(line) + "\n",
    )
    row.save()
    return row


def test_values_are_shown_to_those_who_may_view_them(secret):
    text = Page(
        signed_in(user_with(*VIEW, "view_subtask_values")).get(page_url(SUBTASKS, secret.pk))
    ).text

    assert text.count(SECRET) == 6


def test_values_are_not_shown_to_others(secret):
    response = signed_in(user_with(*VIEW)).get(page_url(SUBTASKS, secret.pk))

    assert SECRET not in response.content.decode()
    assert "shown" in Page(response).text


@pytest.mark.parametrize(
    "lookup", ["args__contains", "return_value__startswith", "errors__contains", "kwargs", "id__in"]
)
def test_values_cannot_be_guessed_by_filtering(secret, lookup):
    client = superuser_client()

    assert client.get(list_url(SUBTASKS), {lookup: SECRET}).status_code == 400


def test_metadata_cannot_be_guessed_by_filtering(taskset):
    client = superuser_client()

    assert client.get(list_url(SETS), {"metadata__contains": "x"}).status_code == 400
    assert client.get(list_url(SETS), {"owner__password__startswith": "x"}).status_code == 400
