"""Whatever is in the rows: pages show it as text, logs keep it to one line, and what is to be
hidden is not to be seen anywhere."""

from __future__ import annotations

import io
import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from django_tasksets import TaskSet, registry, signals, subtask, task
from django_tasksets.failures import MAX_MESSAGE, describe
from django_tasksets.models import ErrorGroupRecord, SubtaskRecord, TaskSetRecord
from django_tasksets.recording import record
from django_tasksets.redaction import HIDDEN
from django_tasksets.statuses import Role
from django_tasksets.store import get_store
from django_tasksets.sweeping import sweep
from tests import flow
from tests.database.admin_pages import (
    SETS,
    SUBTASKS,
    WORKERS,
    Page,
    list_url,
    make_callback,
    make_set,
    make_worker,
    page_url,
    superuser_client,
)
from tests.hostile import CONTROLS, MARKUP, is_escaped, work_off

pytestmark = pytest.mark.django_db

SECRET = "hunter2-\xe9\"'"


# Pages


def fill(payload: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """The payload in every column that takes text; returns all pages that show some of it."""
    user = get_user_model().objects.create_user(username=payload[:150], email="a@b.c")
    short = payload[:64]
    taskset = make_set(
        ["FAILED", "RUNNING", "SCHEDULED", "READY"],
        name=payload, owner=user, metadata=json.dumps({payload: [payload]}),
        revoke_reason=payload, related_id=payload, has_callbacks=True,
        related_type=ContentType.objects.get_for_model(TaskSetRecord),
    )  # fmt: skip
    worker = make_worker(host=payload, queues=f"{short},{short}", version=payload[:50])
    names = ("exception_class", "message", "traceback", "worker_id", "attempt", "at")
    link = {
        "task": payload,
        "args": json.dumps([payload]),
        "kwargs": "{}",
        "plan": {"queue": short},
    }
    SubtaskRecord.objects.filter(taskset=taskset).update(
        task_name=payload, reason=payload, queue_name=short, worker_id=worker.pk,
        args=json.dumps([payload, {payload: payload}]), kwargs=json.dumps({payload: payload}),
        options=json.dumps({payload: payload}), links=json.dumps({"link": [link]}),
        return_value=json.dumps({"$": "model", "class": payload, "value": [payload]}),
        errors=json.dumps(dict.fromkeys(names, payload)) + f"\n{payload}\n",
        error_fingerprint=short[:32], run_after=timezone.now() + timedelta(hours=1),
    )  # fmt: skip
    row = SubtaskRecord.objects.get(taskset=taskset, status="FAILED")
    make_callback(taskset, Role.ON_FINISH, "FAILED", reason=payload, task_name=payload)
    ErrorGroupRecord.objects.create(
        taskset=taskset, fingerprint=short[:32], exception_class=payload, message=payload, count=1,
        first_seen_at=timezone.now(), last_seen_at=timezone.now(), latest_subtask_id=row.pk,
    )  # fmt: skip
    LogEntry.objects.create(
        user=user, content_type=ContentType.objects.get_for_model(TaskSetRecord),
        object_id=str(taskset.pk), object_repr=payload, action_flag=CHANGE, change_message=payload,
    )  # fmt: skip
    strange = TaskSetRecord.objects.create(name=payload, status=payload[:10])
    SubtaskRecord.objects.filter(taskset=taskset, status="READY").update(
        status=payload[:10], role=payload[:10]
    )
    odd = SubtaskRecord.objects.get(taskset=taskset, status=payload[:10])
    pages: dict[str, tuple[str, dict[str, Any]]] = {
        url: (url, {})
        for url in (
            list_url(SETS), list_url(SUBTASKS), list_url(WORKERS), page_url(SETS, taskset.pk),
            page_url(SETS, strange.pk), page_url(SUBTASKS, row.pk), page_url(SUBTASKS, odd.pk),
            page_url(WORKERS, worker.pk),
            *(page_url(SETS, taskset.pk, name) for name in ("revoke", "forget", "delete")),
            page_url(SETS, taskset.pk, "history"),
            page_url(SUBTASKS, row.pk, "revoke"),
        )
    }  # fmt: skip
    asked = {"taskset": taskset.pk, "error": short[:32], "status": payload[:10], "q": payload}
    pages["filtered"] = (list_url(SUBTASKS), asked)
    pages["searched"] = (list_url(SETS), {"q": payload, "status": payload})
    return pages


def structure(page: Page) -> list[tuple[str, tuple[str, ...]]]:
    """The elements with the names of their attributes."""
    return [(tag, tuple(attributes)) for tag, attributes in page.elements]


HARMLESS = "plain words"


@pytest.mark.parametrize("payload", MARKUP)
def test_no_text_in_a_row_becomes_markup(payload: str) -> None:
    client = superuser_client()
    pages = fill(payload)

    for name, (url, data) in pages.items():
        response = client.get(url, data)
        source = response.content.decode()
        assert response.status_code == 200, name
        assert is_escaped(source, [payload]), name
        page = Page(response)
        for tag, attributes in page.elements:
            assert not [each for each in attributes if each.startswith("on")], (name, tag)
            assert not (attributes.get("href") or "").lower().startswith("javascript:"), name
        tags = {tag for tag, _ in page.elements}
        assert tags.isdisjoint({"iframe", "u"}), name
        assert not page.all("img", src="x"), name
    actions = client.post(
        list_url(SETS),
        {
            "action": "revoke_selected",
            "_selected_action": [
                str(key) for key in TaskSetRecord.objects.values_list("pk", flat=True)
            ],
        },
    )
    assert actions.status_code == 200
    assert is_escaped(actions.content.decode(), [payload])


def test_a_text_with_markup_leaves_a_page_with_the_elements_that_it_had() -> None:
    client = superuser_client()
    plain = fill(HARMLESS)
    before = {
        name: structure(Page(client.get(url))) for name, (url, data) in plain.items() if not data
    }
    TaskSetRecord.objects.all().delete()
    SubtaskRecord.objects.all().delete()
    hostile = fill(MARKUP[2])
    after = {
        name: structure(Page(client.get(url))) for name, (url, data) in hostile.items() if not data
    }

    one, other = page_url(SETS, "X"), page_url(SUBTASKS, "X")
    for kind in (one, other):
        prefix = kind.partition("X")[0]
        first = [found for name, found in before.items() if name.startswith(prefix)]
        second = [found for name, found in after.items() if name.startswith(prefix)]
        assert first == second


# Logs


@pytest.mark.parametrize("payload", CONTROLS)
def test_a_log_line_stays_one_line(payload: str, caplog: pytest.LogCaptureFixture) -> None:
    store = get_store()
    caplog.set_level(logging.DEBUG, logger="django_tasksets")
    link = {"task": payload, "args": "[]", "kwargs": "{}", "plan": {"queue": payload}}

    @task(name="tests.security.shout", autoretry_for=(LookupError,), default_retry_delay=0)
    def shout(kind: str) -> None:
        raise {"retry": LookupError, "fail": Shouting, "value": ValueError}[kind](payload)

    class Shouting(Exception):
        __module__ = payload
        __qualname__ = payload

    try:
        TaskSet(
            [shout.subtask((kind,)) for kind in ("retry", "fail", "value")], name=payload
        ).apply_async()
        flow.enqueue(store, task_name=payload, queue_name=payload)
        flow.enqueue(store, task_name="tests.tasks.noop", links=json.dumps({"link": [link]}))
        flow.enqueue(store, task_name="tests.tasks.noop", links=payload)
        flow.enqueue(store, task_name="tests.tasks.noop", args=json.dumps({payload: 1}))
        strange = flow.make_set(store, 1, name=payload)
        SubtaskRecord.objects.filter(taskset=strange).update(status=payload[:10])
        TaskSetRecord.objects.filter(id=strange.id).update(status=payload[:10])
        work_off(store)
        sweep(store)
        TaskSet([shout.subtask(("value",))]).apply_async().revoke(reason=payload)
    finally:
        registry.unregister("tests.security.shout")

    lines = [entry.getMessage() for entry in caplog.records if entry.name == "django_tasksets"]
    assert len(lines) > 6
    for line in lines:
        assert line.isprintable(), line


@pytest.mark.parametrize("payload", CONTROLS)
def test_a_terminal_is_told_nothing_by_a_name(payload: str) -> None:
    TaskSet([subtask("tests.tasks.noop")], name=payload).apply_async()
    plain, as_json = io.StringIO(), io.StringIO()

    call_command("tasksets", stdout=plain)
    call_command("tasksets", "--json", stdout=as_json)
    call_command("verifytasksets", stdout=plain)

    for line in (plain.getvalue() + as_json.getvalue()).split("\n"):
        assert line.isprintable(), line


# Long texts


@task(name="tests.security.long")
def long(kind: str) -> Any:
    private = "never-shown-" * 3
    if kind == "message":
        raise ValueError("A" + "x" * 1_000_000 + "Z")
    if kind == "class":
        raise type("X" * 1_000_000, (Exception,), {})("short")
    if kind == "unicode":
        raise ValueError("\N{SNOWMAN}" * 1_000_000)
    if kind == "deep":
        return long_way_down(5_000)
    return private * 100_000


def long_way_down(depth: int) -> int:
    secret = "never-shown-locals"
    return long_way_down(depth - 1) + len(secret)


@pytest.mark.parametrize("limit", [262_144, 1_000])
@pytest.mark.parametrize("kind", ["message", "class", "unicode", "deep", "result"])
def test_a_failure_takes_little_room(kind: str, limit: int, settings: Any) -> None:
    settings.TASKSETS = {**settings.TASKSETS, "MAX_VALUE_BYTES": limit}
    store = get_store()
    (key,) = flow.enqueue(store, task_name="tests.security.long", args=json.dumps([kind]))

    work_off(store)

    row = flow.fetch(key)
    assert (row.status, len(row.get_errors())) == ("FAILED", 1)
    (error,) = row.get_errors()
    assert len(error["message"]) <= MAX_MESSAGE
    assert len(error["exception_class"]) <= 255
    assert len(error["traceback"]) < 16_384 + 100
    assert len(row.errors) <= max(limit, 30_000)
    assert len(row.reason) <= 200
    assert "never-shown" not in row.errors
    client = superuser_client()
    assert len(client.get(page_url(SUBTASKS, key)).content) < 100_000


def test_a_long_traceback_keeps_its_beginning_and_its_end() -> None:
    try:
        raise ValueError("x" * 100_000 + " the end")
    except ValueError as error:
        trace = describe(error).traceback

    assert trace.startswith("Traceback (most recent call last):")
    assert trace.endswith(" the end\n")
    assert "characters left out" in trace


# What is hidden


@task(name="tests.security.login")
def login(user: str, password: str = "", *tokens: str, **more: Any) -> Any:
    if user == "return":
        return {"Password": SECRET, "as": [{"token": SECRET}]}
    raise ValueError(f"{user} may not enter with {password!r}, {tokens}, {more}")


@task(name="tests.security.retry_login", autoretry_for=(ValueError,), default_retry_delay=0)
def retry_login(user: str, password: str) -> None:
    raise ValueError(f"not {password}, or {[password]}")


CALLS = {
    "by name": (("anna",), {"password": SECRET}),
    "by place": (("anna", SECRET), {}),
    "in a list": (("anna", "x", SECRET), {}),
    "in a dict": (("anna",), {"more": {"Password": SECRET}}),
    "deep": (({"token": [{"x": SECRET}]},), {}),
    "in a tuple": (("anna",), {"more": ({"password": SECRET},)}),
    "in a dict of other keys": (("anna",), {"more": {1: {"tokens": SECRET}, "TOKEN": [SECRET]}}),
    "under a key of its own": (("anna",), {"token": (SECRET, SECRET)}),
    "returned": (("return",), {}),
}


@pytest.fixture
def redact(settings: Any) -> None:
    settings.TASKSETS = {**settings.TASKSETS, "REDACT": ["password", "TOKEN", "tokens"]}


def hidden_in(text: str) -> bool:
    return "hunter2" not in text


@pytest.mark.usefixtures("redact")
@pytest.mark.parametrize(("args", "kwargs"), CALLS.values(), ids=CALLS)
def test_what_is_to_be_hidden_is_seen_nowhere(
    args: tuple[Any, ...], kwargs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="django_tasksets")
    told: list[str] = []

    def listen(**given: Any) -> None:
        told.append(repr(given))

    for signal in (signals.subtask_finished, signals.subtask_retried, signals.subtask_started):
        signal.connect(listen)
    call = login.subtask(args, kwargs)
    again = retry_login.subtask(("anna", SECRET), {}, {"link": login.subtask(("anna", SECRET))})
    try:
        taskset = TaskSet(
            [call, again], metadata={"password": SECRET}, on_failure=call
        ).apply_async()
        for _ in range(5):
            work_off(get_store())
    finally:
        for signal in (signals.subtask_finished, signals.subtask_retried, signals.subtask_started):
            signal.disconnect(listen)

    assert not SubtaskRecord.objects.exclude(
        status__in=("SUCCESSFUL", "FAILED", "REVOKED")
    ).exists()
    client = superuser_client()
    for row in SubtaskRecord.objects.all():
        text = Page(client.get(page_url(SUBTASKS, row.pk))).text
        assert hidden_in(text), text
        assert HIDDEN in text
        assert hidden_in(row.reason)
        errors = [{k: v for k, v in each.items() if k != "args"} for each in row.get_errors()]
        assert hidden_in(str(errors))
    for url in (page_url(SETS, taskset.id), list_url(SUBTASKS), list_url(SETS)):
        assert hidden_in(Page(client.get(url)).text)
    assert hidden_in(repr(call) + repr(again))
    assert told
    assert hidden_in(" ".join(told))
    assert hidden_in(caplog.text)


@pytest.mark.usefixtures("redact")
@pytest.mark.parametrize(
    "columns",
    [
        {"args": f'["x", "{SECRET[:7]}"'},
        {"args": f'["{SECRET[:7]}"]', "task_name": "not.known"},
        {"kwargs": f'{{"password": "{SECRET[:7]}'},
        {"kwargs": f'{{"$":"dict","value":[[["a"],{{"password":"{SECRET[:7]}"}}]]}}'},
        {"return_value": f'{{"$":"x","password":"{SECRET[:7]}"}}'},
        {"links": json.dumps({"link": [{"password": SECRET[:7]}]})},
        {"links": json.dumps({"link": [{"args": f'{{"password":"{SECRET[:7]}"}}'}]})},
    ],
    ids=str,
)
def test_what_cannot_be_read_is_hidden_as_a_whole(columns: dict[str, str]) -> None:
    (key,) = flow.enqueue(get_store(), task_name="tests.security.login")
    SubtaskRecord.objects.filter(id=key).update(**columns)

    text = Page(superuser_client().get(page_url(SUBTASKS, key))).text

    assert hidden_in(text)
    assert HIDDEN in text


@pytest.mark.usefixtures("redact")
def test_names_that_are_not_listed_are_shown() -> None:
    call = login.subtask(("anna", SECRET), {"city": "Rome"})
    (key,) = flow.enqueue(
        get_store(), task_name="tests.security.login", args=json.dumps(["anna", SECRET])
    )

    text = Page(superuser_client().get(page_url(SUBTASKS, key))).text

    assert f"['anna', '{HIDDEN}']" in text
    assert repr(call) == f"<subtask: tests.security.login('anna', {HIDDEN}, city='Rome')>"


def test_a_request_does_not_tell_its_arguments() -> None:
    seen: list[str] = []

    @task(name="tests.security.look", bind=True)
    def look(self: Any, password: str) -> None:
        seen.append(repr(self.request))

    try:
        look.apply((SECRET,))
    finally:
        registry.unregister("tests.security.look")
    assert "tests.security.look" in seen[0]
    assert hidden_in(seen[0])


def test_what_the_database_refuses_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    """Databases quote the whole row in what they say about it."""
    store = get_store()
    taskset = flow.make_set(store, 2, metadata=json.dumps(SECRET), name=SECRET)
    worker_id = flow.new_worker(store)
    first, _ = flow.claim_members(store, worker_id, taskset)
    TaskSetRecord.objects.filter(id=taskset.id).update(remaining=0, successful=2)
    recorded = record(store, worker_id, [flow.outcome(first)])

    assert len(recorded.parked) == 1
    assert "subtask refused" in caplog.text
    assert hidden_in(caplog.text)


def test_no_page_tells_strangers_more_than_where_to_sign_in() -> None:
    pages = fill(SECRET)

    for url, data in pages.values():
        response = Client().get(url, data)
        assert response.status_code == 302
        assert hidden_in(response.content.decode())
