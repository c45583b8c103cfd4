"""What each page presumes, and what must have come of it once its code has run.

A scene yields the names that the page's code finds, and gets back in them all that the code made.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group, User
from django.core.checks import CheckMessage
from django.http import Http404
from django.test import Client, RequestFactory, TestCase, override_settings
from django.urls import path

from django_tasksets import InvalidCall, InvalidOption, TaskSet, TaskSetResult, gen_unique_id, task
from django_tasksets.attempts import backoff
from django_tasksets.calls import IGNORED_OPTIONS
from django_tasksets.checks import _check_sqlite_journal, _check_sqlite_transactions
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.signals import taskset_finished, taskset_progressed
from django_tasksets.testing import run_subtasks
from tests.docs.pages import ROOT
from tests.tasks import echo

Names = dict[str, Any]
Scene = Callable[[], AbstractContextManager[Names]]
SCENES: dict[str, Scene] = {}


def scene(path: str) -> Callable[[Callable[[], Iterator[Names]]], Scene]:
    """The scene of the page at `path`."""

    def keep(function: Callable[[], Iterator[Names]]) -> Scene:
        SCENES[path] = contextmanager(function)
        return SCENES[path]

    return keep


@contextmanager
def nothing() -> Iterator[Names]:
    """For a page that brings all that it needs."""
    yield {}


@scene("README.md")
def readme() -> Iterator[Names]:
    album = an_album(photos=3)
    names: Names = {"album": album}
    yield names
    result = names["resize_album"](album)
    run_subtasks()
    assert result.join() == [None, None, None]
    assert result.callbacks["on_success"].successful()
    assert result.record.related == album


@scene("docs/index.md")
def index() -> Iterator[Names]:
    names: Names = {"album": an_album(photos=3)}
    yield names
    assert names["result"].callbacks["on_success"].successful()


@scene("docs/quickstart.md")
def quickstart() -> Iterator[Names]:
    taskset_id = gen_unique_id()
    names: Names = {
        "BASE_DIR": ROOT,
        "skus": ["A-1", "A-2"],
        "catalogue": Group.objects.create(name="Autumn"),
        "taskset_id": taskset_id,
    }
    TaskSet().apply_async(taskset_id=taskset_id)
    yield names
    assert sqlite_messages(names["DATABASES"]["default"]["OPTIONS"]) == []
    assert names["result"].callbacks["on_success"].successful()
    assert names["progress"].percent == 100


@scene("docs/howto/testing.md")
def testing() -> Iterator[Names]:
    catalogue = SimpleNamespace(is_published=False, refresh_from_db=lambda: None)

    def apply_prices(catalogue: Any) -> Any:
        return TaskSet([echo.subtask()]).apply_async()

    names: Names = {"apply_prices": apply_prices}
    yield names
    case = names["CatalogueTests"]("test_prices_are_published")
    case.catalogue = catalogue
    with pytest.raises(AssertionError, match="False is not true"):
        case.test_prices_are_published()
    catalogue.is_published = True
    case.test_prices_are_published()


@scene("docs/howto/callbacks.md")
def callbacks() -> Iterator[Names]:
    names: Names = {}
    yield names
    measure, publish = names["measure"], names["publish"]
    notes = SubtaskRecord.objects.filter(task_name=names["note"].name)
    assert [record.get_return_value() for record in notes] == ["length: 3"]
    complaints = SubtaskRecord.objects.filter(task_name=names["complain"].name)
    assert ["TypeError" in record.get_return_value() for record in complaints] == [True]

    empty = TaskSet(on_success=publish.subtask(("None",))).apply_async()
    assert empty.ready()
    run_subtasks()
    assert empty.callbacks["on_success"].get() == "None: 0"

    later = publish.subtask(("Later",), options={"countdown": 3600})
    result = TaskSet([measure.subtask(("a",))], on_success=later).apply_async()
    run_subtasks()
    callback = SubtaskRecord.objects.get(pk=result.callbacks["on_success"].id)
    assert callback.status == "SCHEDULED"
    assert callback.run_after is not None
    after = callback.run_after - callback.enqueued_at
    assert round(after.total_seconds(), -1) == 3600

    members = [measure.subtask((1,)), *[measure.subtask(("a",))] * 3]
    result = TaskSet(members, fail_fast=True, on_failure=names["tidy_up"].subtask()).apply_async()
    run_subtasks(limit=1)
    assert result.progress().revoked == 3
    run_subtasks()
    assert result.callbacks["on_failure"].successful()


@scene("docs/howto/admin.md")
def in_the_admin() -> Iterator[Names]:
    names: Names = {}
    yield names
    token = echo.s(user="me", token="secret-token")
    result = TaskSet([token], name="Tokens", metadata="invoice 7").apply_async()
    run_subtasks()
    page: Any = sys.modules[names["__name__"]]
    page.urlpatterns = [path("backoffice/", page.site.urls)]
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    with override_settings(ROOT_URLCONF=page.__name__, TASKSETS={"REDACT": ["password", "token"]}):
        sets = "/backoffice/tasksets/tasksetrecord/"
        assert b"Tokens" in client.get(sets).content
        assert client.get(f"{sets}{result.id}/change/").context["invoice"] == "invoice 7"
        answer = client.get(f"/backoffice/tasksets/subtaskrecord/{result[0].id}/change/")
        assert b"&#x27;me&#x27;" in answer.content
        assert b"secret-token" not in answer.content
        assert client.get("/backoffice/tasksets/workerrecord/").status_code == 200


@scene("docs/howto/limits.md")
def limits() -> Iterator[Names]:
    names: Names = {"run_converter": len}
    yield names
    [converted] = SubtaskRecord.objects.all()
    assert converted.get_return_value() == len("film.mov")
    assert json.loads(converted.options) == {"time_limit": 3600, "soft_time_limit": 3500}


@scene("docs/howto/progress.md")
def progress() -> Iterator[Names]:
    user = User.objects.create(username="me")
    album = an_album(photos=2)
    job = TaskSet((echo.subtask() for _ in range(2)), name="Two", owner=user, related=album)
    result = job.apply_async()
    sent: list[Any] = []
    names: Names = {
        "taskset_id": result.taskset_id,
        "user": user,
        "album": album,
        "send_to_browsers": lambda *news: sent.append(news),
    }
    yield names
    assert names["progress"].remaining == 2
    assert list(names["of_album"]) == list(names["mine"])
    assert names["shares"] == [("Two", 2, 2)]

    [route] = names["urlpatterns"]
    resolved = route.resolve(f"progress/{result.taskset_id}/")
    request = RequestFactory().get("/")
    request.user = user
    answer = resolved.func(request, **resolved.kwargs)
    assert json.loads(answer.content) == {"percent": 100, "failed": 0, "is_finished": True}
    request.user = User.objects.create(username="somebody else")
    with pytest.raises(Http404):
        resolved.func(request, **resolved.kwargs)

    TaskSet([echo.subtask()]).apply_async()
    run_subtasks()
    assert [percent for _, percent in sent] == [100]
    assert taskset_progressed.disconnect(names["push"])


@scene("docs/howto/retries.md")
def retries() -> Iterator[Names]:
    called: list[Any] = []

    class Busy(Exception):
        retry_after = 7

    def place(order_id: int) -> str:
        called.append(order_id)
        if len(called) == 1:
            raise Busy("later")
        return "placed"

    names: Names = {
        "Busy": Busy,
        "shop": SimpleNamespace(place=place),
        "download": len,
        "payments": SimpleNamespace(charge=lambda order, *, idempotency_key: None),
    }
    yield names
    fetch = names["fetch"]
    fetch.retry_jitter = False
    assert [backoff(fetch, retries) for retries in range(5)] == [2, 4, 8, 16, 32]
    assert backoff(fetch, 20) == fetch.retry_backoff_max == 600

    order = names["place_order"].delay(1)
    run_subtasks()
    assert (order.state, called) == ("RETRY", [1])
    record = order.record
    assert datetime.timedelta(seconds=6) < record.run_after - record.started_at
    assert "Busy" in record.get_errors()[0]["exception_class"]
    run_subtasks(scheduled=True)
    assert order.get() == "placed"

    late = fetch.apply_async(("",), expires=0)
    run_subtasks()
    assert (late.status, late.record.reason) == ("REVOKED", "expired")


@scene("docs/howto/async.md")
def asynchronous() -> Iterator[Names]:
    async def ask(host: str) -> str:
        return f"{host} answers"

    async def neighbours(host: str) -> AsyncIterator[str]:
        yield f"{host}-2"

    names: Names = {"ask": ask, "neighbours": neighbours, "hosts": ["a", "b"]}
    yield names
    request = RequestFactory().get("/")
    begun = json.loads(async_to_sync(names["begin"])(request).content)
    run_subtasks()
    shown = json.loads(async_to_sync(names["show"])(request, begun["id"]).content)
    assert shown == {"percent": 100, "answers": ["a answers", "b answers"]}

    result = async_to_sync(names["crawl"])("c")
    run_subtasks()
    assert result.join() == ["c answers", "c-2 answers"]


@scene("docs/howto/several-databases.md")
def several_databases() -> Iterator[Names]:
    album = an_album(photos=2)
    names: Names = {"resize": echo}
    yield names
    router = names["TaskSetsRouter"]()
    assert (router.db_for_write(TaskSetRecord), router.db_for_read(User)) == ("tasks", "default")
    with TestCase.captureOnCommitCallbacks(execute=True):
        names["resize_all"](album)
        assert TaskSetResult(album.taskset_id).status is None
    assert TaskSetResult(album.taskset_id).total == 2


@scene("docs/howto/celery.md")
def from_celery() -> Iterator[Names]:
    names: Names = {}
    yield names
    add = names["add"]
    add.s(1, 2).apply_async(link=add.s(10))
    run_subtasks()
    alone = SubtaskRecord.objects.filter(taskset=None)
    assert {record.get_return_value() for record in alone} == {3, 13}
    assert add.apply_async((1, 2), **dict.fromkeys(IGNORED_OPTIONS))
    wrong: Names = {"retry_kwargs": {"max_retries": 5}}
    with pytest.raises(InvalidOption, match="retry_kwargs"):
        task(**wrong)(add.run)
    nested: list[Any] = [TaskSet([add.s(1, 2)])]
    with pytest.raises(InvalidCall):
        TaskSet(nested).apply_async()


@scene("docs/reference/signals.md")
def receivers() -> Iterator[Names]:
    names: Names = {}
    yield names
    assert taskset_finished.disconnect(names["note"])


def sqlite_messages(options: Names) -> list[CheckMessage]:
    """What `manage.py check` says about a SQLite database with these options."""
    mode, journal = options["transaction_mode"], options["init_command"]
    return _check_sqlite_transactions("default", mode) + _check_sqlite_journal("default", journal)


def an_album(*, photos: int) -> Any:
    """A model instance that has photos."""
    album: Any = Group.objects.create(name="Holidays")
    album.photos = album.user_set
    for number in range(photos):
        album.photos.create(username=f"photo {number}")
    return album
