"""The admin elsewhere than in Django's own site and in the default database."""

from __future__ import annotations

import importlib

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_tasksets import admin as ours
from django_tasksets.models import SubtaskRecord, TaskSetRecord, WorkerRecord
from tests.database.admin_pages import (
    SETS,
    SUBTASKS,
    WORKERS,
    Page,
    list_url,
    make_set,
    make_worker,
    messages_of,
    page_url,
    superuser_client,
)


class SetsOnly(admin.AdminSite):
    """A site of one's own, with one of the three."""


class MySetAdmin(ours.TaskSetAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """As a theme or a project would make it."""

    list_per_page = 10

    def get_taskset_extra_context(self, request, record):
        return {"extra": record.total}


site = SetsOnly(name="ops")
site.register(TaskSetRecord, MySetAdmin)
urlpatterns = [path("ops/", site.urls)]


@pytest.mark.django_db
@pytest.mark.urls(__name__)
def test_on_a_site_of_ones_own_all_links_stay_there():
    client = superuser_client()
    taskset = make_set(["FAILED", "READY"])

    listing = Page(client.get("/ops/tasksets/tasksetrecord/"))
    page = Page(client.get(f"/ops/tasksets/tasksetrecord/{taskset.pk}/change/"))

    for each in (listing, page):
        assert each.status == 200
        links = each.links() | each.posts()
        assert [link for link in links if link.startswith("/") and "/ops/" not in link] == ["/"]
        # Subtasks have no pages there, so nothing leads to one.
        assert [link for link in links if "subtaskrecord" in link] == []
    (head,) = page.all("div", class_="tasksets-head")
    assert head["data-tasksets-url"] == "/ops/tasksets/tasksetrecord/progress.json"
    told = client.post(f"/ops/tasksets/tasksetrecord/{taskset.pk}/rerun/", follow=True)
    assert messages_of(told) == ["1 task set run again."]


@pytest.mark.parametrize("wanted", [True, False])
def test_registering_can_be_left_to_the_project(monkeypatch, settings, wanted):
    fresh = admin.AdminSite()
    monkeypatch.setattr(admin, "site", fresh)
    settings.TASKSETS = {**settings.TASKSETS, "REGISTER_ADMIN": wanted}

    importlib.reload(ours)

    for model in (TaskSetRecord, SubtaskRecord, WorkerRecord):
        assert fresh.is_registered(model) == wanted


@pytest.mark.django_db(transaction=True)
def test_rows_are_read_where_they_are(other_connection, settings):
    """Users, sessions and the log stay in the default database, the rows are in another one."""
    client = superuser_client()
    owner = get_user_model().objects.get()
    taskset = make_set(["FAILED", "READY", "RUNNING"], owner=owner)
    row = SubtaskRecord.objects.filter(taskset=taskset).first()
    worker = make_worker()
    settings.TASKSETS = {**settings.TASKSETS, "DATABASE": "other"}

    def visit():
        for url in (
            list_url(SETS),
            page_url(SETS, taskset.pk),
            list_url(SUBTASKS),
            f"{list_url(SUBTASKS)}?taskset={taskset.pk}",
            page_url(SUBTASKS, row.pk),
            list_url(WORKERS),
            page_url(WORKERS, worker.pk),
        ):
            page = Page(client.get(url))
            assert page.status == 200
            assert owner.username in page.text

    with (
        CaptureQueriesContext(connection) as here,
        CaptureQueriesContext(connections["other"]) as there,
    ):
        visit()

    assert [query["sql"] for query in here if '"tasksets_' in query["sql"]] == []
    assert [query["sql"] for query in there if "tasksets_" not in query["sql"]] == []


@pytest.mark.django_db
def test_without_script_everything_is_there_all_the_same():
    """Nothing that matters is hidden until a script shows it."""
    taskset = make_set(["FAILED", "READY"])

    page = Page(superuser_client().get(page_url(SETS, taskset.pk)))

    notes = {"data-tasksets-can", "data-tasksets-lost", "data-tasksets-stale"}
    for _, attributes in page.elements:
        assert "hidden" not in attributes or notes & attributes.keys()
    shown = {b.get("data-tasksets-can") for b in page.all("button") if "hidden" not in b}
    assert {"pause", "retry", "rerun"} <= shown
