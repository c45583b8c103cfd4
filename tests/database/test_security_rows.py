"""Rows that somebody else has written: each fails by itself, with a reason, and harms no other."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection

from django_tasksets import AsyncResult, TaskSetResult, UnreadableValue
from django_tasksets.maintenance import rescue
from django_tasksets.models import SubtaskRecord, TaskSetRecord, WorkerRecord
from django_tasksets.statuses import FINISHED, Role
from django_tasksets.store import get_store
from django_tasksets.store.contract import Store
from django_tasksets.store.portable import PortableStore
from django_tasksets.sweeping import sweep
from tests import flow
from tests.database.admin_pages import (
    SETS,
    SUBTASKS,
    list_url,
    page_url,
    superuser_client,
)
from tests.hostile import DEEP, HUGE, TRAP, error_line, trap, work_off, write, write_raw

pytestmark = pytest.mark.django_db

ONLY_SQLITE = pytest.mark.skipif(connection.vendor != "sqlite", reason="columns have types here")
ONLY_POSTGRESQL = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="has no such times or notifications"
)

ARGS = {
    "empty": "",
    "cut off": "[1,",
    "an object": '{"x": 1}',
    "a text": '"ab"',
    "a number": "5",
    "null": "null",
    "too deep": DEEP,
    "a huge number": f"[{HUGE}]",
    "an unknown tag": '[{"$":"nope","value":1}]',
    "a tag that is none": '[{"$":["UUID"],"value":1}]',
    "a wrong payload": '[{"$":"UUID","value":{}}]',
    "a class that is not imported": f'[{{"$":"enum","class":"{TRAP}:Enum","value":"A"}}]',
    "a class that is none": '[{"$":"dataclass","class":"os:system","value":{"a":1}}]',
    "a model that is none": '[{"$":"model","class":"no.model","value":[1,"default"]}]',
    "a row elsewhere": '[{"$":"model","class":"auth.user","value":[1,"nowhere"]}]',
    "a row that is gone": '[{"$":"model","class":"auth.user","value":[99999,"default"]}]',
    "half a character": json.dumps(["\ud800"]),
    "not a number": "[NaN]",
}
KWARGS = {
    "empty": "",
    "cut off": '{"a":',
    "a list": "[]",
    "a number": "5",
    "null": "null",
    "too deep": '{"a":' * 100_000,
    "keys that are no names": '{"$":"dict","value":[[1,2]]}',
}
OPTIONS = {
    "cut off": "{",
    "a list": "[]",
    "a text": '"max_retries"',
    "a number": "5",
    "too deep": DEEP,
    "a limit that is none": '{"max_retries": "x"}',
    "an endless limit": '{"max_retries": Infinity}',
    "a time limit that is none": '{"time_limit": "soon"}',
    "a soft time limit that is none": '{"soft_time_limit": []}',
    "immutable as a text": '{"immutable": "yes"}',
}
HOSTILE = [
    pytest.param(column, text, id=f"{column}-{what}")
    for column, cases in (("args", ARGS), ("kwargs", KWARGS), ("options", OPTIONS))
    for what, text in cases.items()
]


@pytest.fixture(params=["portable", "native"])
def store(request: pytest.FixtureRequest) -> Store:
    return PortableStore("default") if request.param == "portable" else get_store()


def three(store: Store, **columns: Any) -> tuple[TaskSetRecord, list[uuid.UUID]]:
    """A set of three with callbacks, to have its second member spoilt."""
    taskset = flow.make_set(
        store, 3, callbacks=flow.CALLBACKS, member={"task_name": "tests.tasks.echo"} | columns
    )
    rows = SubtaskRecord.objects.members().filter(taskset=taskset).order_by("position")
    return taskset, list(rows.values_list("id", flat=True))


def check_pages(taskset: TaskSetRecord | None, key: uuid.UUID) -> None:
    """All pages that show the row, and its handle, make something of it."""
    client = superuser_client()
    urls = [list_url(SUBTASKS), page_url(SUBTASKS, key), page_url(SUBTASKS, key, "revoke")]
    if taskset is not None:
        urls += [list_url(SETS), page_url(SETS, taskset.pk)]
        urls += [f"{list_url(SUBTASKS)}?taskset={taskset.pk}"]
    for url in urls:
        assert client.get(url).status_code == 200, url
    result = AsyncResult[Any](key)
    assert isinstance(result.get(propagate=False, timeout=0), Exception)
    assert result.state == "FAILURE"


def check_only_the_second_failed(taskset: TaskSetRecord, keys: list[uuid.UUID]) -> str:
    """Its neighbours succeeded, the set has finished; returns the reason of its failure."""
    assert flow.statuses_of(keys) == ["SUCCESSFUL", "FAILED", "SUCCESSFUL"]
    assert flow.counts_of(taskset) == (3, 0, 2, 1, 0)
    assert flow.callbacks_of(taskset)["ON_FAILURE"] == "READY"
    return flow.fetch(keys[1]).reason


# Columns of text


@pytest.mark.parametrize(("column", "text"), HOSTILE)
def test_a_spoilt_call_fails_by_itself(column: str, text: str, tmp_path: Path) -> None:
    store = get_store()
    taskset, keys = three(store)
    write(keys[1], **{column: text})

    with trap(tmp_path):
        recorded = work_off(store)
        assert len(recorded.written) == 3
        assert not recorded.parked
        assert check_only_the_second_failed(taskset, keys)
        check_pages(taskset, keys[1])


def test_the_reason_is_told() -> None:
    store = get_store()
    _, keys = three(store)
    write(keys[0], args='{"a": 1}')
    write(keys[1], kwargs="[]")
    write(keys[2], options='{"max_retries": "x"}')

    work_off(store)

    errors = [flow.fetch(key).get_errors()[0]["message"] for key in keys]
    assert errors[0] == "The arguments are not a JSON list"
    assert errors[1] == "The keyword arguments are not a JSON object"
    assert errors[2].startswith("The option max_retries='x' is not possible: a whole number")
    assert flow.fetch(keys[0]).reason == "the arguments cannot be read"


def test_of_keys_that_are_there_twice_the_last_one_counts() -> None:
    store = get_store()
    (key,) = flow.enqueue(store, task_name="tests.tasks.echo", args='[{"a":1,"a":2}]')

    work_off(store)

    assert AsyncResult[Any](key).get() == [[{"a": 2}], {}]


GOOD_LINK: dict[str, Any] = {
    "task": "tests.tasks.echo",
    "args": "[]",
    "kwargs": "{}",
    "plan": {"queue": "default", "priority": 0},
}


def planned(**plan: Any) -> str:
    return json.dumps({"link": [{**GOOD_LINK, "plan": GOOD_LINK["plan"] | plan}]})


LINKS = {
    "cut off": "{",
    "a list": "[]",
    "a number": "5",
    "too deep": DEEP,
    "links that are none": '{"link": 5}',
    "a link that is none": '{"link": [5]}',
    "a link without a plan": json.dumps({"link": [{**GOOD_LINK, "plan": None}]}),
    "a plan with too much": planned(command="rm"),
    "a queue that is none": planned(queue=["a"]),
    "a long queue": planned(queue="q" * 300),
    "a priority that is none": planned(priority="high"),
    "a priority out of range": planned(priority=10**30),
    "a weight out of range": planned(weight=-1),
    "a countdown that is none": planned(countdown="soon"),
    "an endless countdown": planned(countdown=1e300),
    "an eta that is none": planned(eta="yesterday"),
    "an id that is none": planned(task_id="\u2028x"),
    "options that are none": planned(options="{"),
    "options of another kind": planned(options=5),
    "arguments of another kind": json.dumps({"link": [{**GOOD_LINK, "args": [1]}]}),
    "a task of another kind": json.dumps({"link": [{**GOOD_LINK, "task": {}}]}),
    "half a character": json.dumps({"link": [{**GOOD_LINK, "task": "\ud800"}]}),
    "a character that is none": json.dumps({"link": [{**GOOD_LINK, "args": "[\u0000]"}]}),
}


@pytest.mark.parametrize("text", [pytest.param(text, id=what) for what, text in LINKS.items()])
def test_spoilt_links_are_left_out(text: str) -> None:
    store = get_store()
    keys = flow.enqueue(store, 2, task_name="tests.tasks.noop", links=json.dumps({"link": []}))
    write(keys[0], links=text)

    recorded = work_off(store)

    assert len(recorded.written) == 2
    assert flow.statuses_of(keys) == ["SUCCESSFUL", "SUCCESSFUL"]
    # Whatever has come of them is a row that can be worked off, and fails at most.
    work_off(store)
    assert not SubtaskRecord.objects.exclude(status__in=FINISHED).exists()
    client = superuser_client()
    assert client.get(page_url(SUBTASKS, keys[0])).status_code == 200


def test_a_link_that_is_in_order_is_enqueued() -> None:
    """By which the links above are told to be wrong in one thing alone."""
    store = get_store()
    flow.enqueue(store, task_name="tests.tasks.noop", links=planned())

    work_off(store, rounds=2)

    assert SubtaskRecord.objects.filter(task_name="tests.tasks.echo", status="SUCCESSFUL").exists()


@pytest.mark.parametrize("text", [pytest.param(text, id=what) for what, text in OPTIONS.items()])
def test_a_set_ends_whatever_the_options_of_its_callbacks_are(text: str) -> None:
    store = get_store()
    taskset, keys = three(store)
    others = SubtaskRecord.objects.callbacks().filter(taskset=taskset)
    others.update(options=text, task_name="tests.tasks.echo")

    work_off(store)

    assert flow.statuses_of(keys) == ["SUCCESSFUL"] * 3
    assert flow.callbacks_of(taskset) == {
        "ON_SUCCESS": "READY", "ON_FAILURE": "REVOKED", "ON_FINISH": "WAITING",
    }  # fmt: skip
    work_off(store, rounds=2)
    assert flow.callbacks_of(taskset)["ON_SUCCESS"] == "FAILED"
    assert flow.callbacks_of(taskset)["ON_FINISH"] == "FAILED"
    assert sweep(store) == 0


@pytest.mark.parametrize("text", ["", "[", "1,2", "1],[2", f"{HUGE}", DEEP, '{"$":"x","value":1}'])
def test_a_callback_is_not_given_a_spoilt_result(text: str) -> None:
    store = get_store()
    taskset, keys = three(store)
    callback = SubtaskRecord.objects.callbacks().filter(taskset=taskset, role=Role.ON_SUCCESS)
    callback.update(task_name="tests.tasks.echo")
    work_off(store)
    write(keys[1], return_value=text)

    work_off(store)

    row = callback.get()
    assert (row.status, row.reason) == ("FAILED", "the arguments cannot be read")
    assert isinstance(AsyncResult[Any](keys[1]).get(propagate=False), Exception)
    assert len(TaskSetResult(taskset.pk).join(propagate=False)) == 3
    client = superuser_client()
    assert client.get(page_url(SUBTASKS, keys[1])).status_code == 200


ERRORS = {
    "cut off": "{",
    "a list": "[]\n",
    "a number": "5\n",
    "too deep": DEEP + "\n",
    "lines of all kinds": "\n\n{}\nnull\n" + '{"exception_class": 5}\n',
    "a class that is not imported": error_line(exception_class=f"{TRAP}.Error", args="[]"),
    "a class that is no exception": error_line(exception_class="os.system", args='["true"]'),
    "one that ends the process": error_line(exception_class="builtins.SystemExit", args="[0]"),
    "arguments that are none": error_line(exception_class="builtins.ValueError", args="[["),
    "a huge message": error_line(exception_class="E", message="x" * 1_000_000),
    "a worker that is none": error_line(worker_id={"a": 1}, attempt=[], at=5, traceback=["x"]),
}


@pytest.mark.parametrize("text", [pytest.param(text, id=what) for what, text in ERRORS.items()])
def test_spoilt_errors_are_shown_and_raised_as_what_they_are(text: str, tmp_path: Path) -> None:
    store = get_store()
    taskset, keys = three(store)
    work_off(store)
    write(keys[1], errors=text, status="FAILED", return_value=None, error_fingerprint="f")

    with trap(tmp_path):
        check_pages(taskset, keys[1])
        assert isinstance(flow.fetch(keys[1]).worker_ids, list)
        assert len(TaskSetResult(taskset.pk).join(propagate=False)) == 3


@pytest.mark.parametrize("text", ["", "{", "5", DEEP, f"[{HUGE}]", '{"$":5}', '["x"]', "null"])
def test_spoilt_columns_of_sets_are_shown(text: str) -> None:
    store = get_store()
    taskset, _ = three(store)
    saved = TaskSetRecord.objects.create(status="SAVED", saved_ids=text, metadata=text)
    TaskSetRecord.objects.filter(id=taskset.id).update(metadata=text)
    client = superuser_client()

    for key in (taskset.id, saved.id):
        assert client.get(page_url(SETS, key)).status_code == 200
    assert TaskSetResult(taskset.id).progress().total == 3
    if text:
        with pytest.raises(UnreadableValue):
            TaskSetResult(saved.id).progress()
    work_off(store)
    assert flow.counts_of(taskset)[1] == 0


# Words


@pytest.mark.parametrize("task_name", [f"{TRAP}.task", TRAP, "os.system", "", "x" * 255, "../x"])
def test_a_name_in_a_row_imports_nothing_and_calls_nothing(task_name: str, tmp_path: Path) -> None:
    store = get_store()
    taskset, keys = three(store)
    # It has been given back as often as it may be, in case another worker knew it.
    write(keys[1], task_name=task_name, deferrals=10)

    with trap(tmp_path):
        work_off(store)
        assert check_only_the_second_failed(taskset, keys) == "unknown task"
        check_pages(taskset, keys[1])


@pytest.mark.parametrize("role", ["", "BOSS", "member"])
def test_a_role_that_is_none_is_not_executed(role: str) -> None:
    store = get_store()
    taskset, keys = three(store)
    write(keys[1], role=role)

    work_off(store)
    sweep(store)

    assert check_only_the_second_failed(taskset, keys) == "the arguments cannot be read"
    check_pages(taskset, keys[1])


# Numbers and times

LAST = {
    "claims": 2**31 - 1, "attempts": 2**31 - 1, "retries": 2**31 - 1, "crashes": 2**15 - 1,
    "deferrals": 2**15 - 1, "priority": 2**15 - 1, "claim_order": 2**63 - 1, "weight": 2**15 - 1,
    "generation": 2**15 - 1, "revoke_flag": 2**15 - 1,
}  # fmt: skip


@pytest.mark.parametrize(("column", "number"), LAST.items())
def test_numbers_at_the_end_of_their_columns(store: Store, column: str, number: int) -> None:
    taskset, keys = three(store)
    write(keys[1], **{column: number})

    recorded = work_off(store)

    assert not recorded.parked
    assert set(flow.statuses_of([keys[0], keys[2]])) == {"SUCCESSFUL"}
    assert flow.fetch(keys[1]).is_finished
    assert flow.counts_of(taskset)[1] == 0


@ONLY_SQLITE
def test_claims_that_are_no_number_begin_anew() -> None:
    store = get_store()
    _, keys = three(store)
    write_raw(keys[1], claims="'many'")

    work_off(store)

    assert flow.statuses_of(keys) == ["SUCCESSFUL"] * 3
    assert isinstance(flow.fetch(keys[1]).claims, int)


@ONLY_SQLITE
@pytest.mark.parametrize(
    "columns",
    [
        {"args": "x'5b5d'"},
        {"args": "CAST(x'ff' AS TEXT)"},
        {"task_name": "x'00ff'"},
        {"priority": "'high'", "queue_name": "'another'"},
        {"claim_order": "1.5"},
        {"attempts": "x'00'"},
        {"enqueued_at": "'yesterday'"},
        {"expires_at": "'2999-99-99 00:00:00'"},
        {"id": "'no-id'"},
        {"id": "x'00'"},
    ],
    ids=str,
)
def test_columns_of_another_type_fail_their_row_alone(columns: dict[str, str]) -> None:
    store = get_store()
    taskset, keys = three(store)
    write_raw(keys[1], **columns)

    work_off(store)

    others = SubtaskRecord.objects.filter(taskset=taskset, position__gte=0).order_by("position")
    rows = list(others.values_list("status", "reason"))
    assert [status for status, _ in rows] == ["SUCCESSFUL", "FAILED", "SUCCESSFUL"]
    assert rows[1][1] == "the row cannot be read"
    assert sweep(store) == 1
    assert flow.counts_of(taskset) == (3, 0, 2, 1, 0)
    client = superuser_client()
    key = others.get(position=1).pk
    for url in (list_url(SUBTASKS), page_url(SUBTASKS, key), page_url(SETS, taskset.pk)):
        assert client.get(url).status_code == 200


@ONLY_POSTGRESQL
@pytest.mark.parametrize("time", ["infinity", "-infinity", "20000-01-01", "0001-01-01 BC"])
@pytest.mark.parametrize("column", ["enqueued_at", "expires_at"])
def test_times_that_python_has_none_for(store: Store, column: str, time: str) -> None:
    taskset, keys = three(store)
    write_raw(keys[1], **{column: f"'{time}'"})

    work_off(store)

    assert set(flow.statuses_of([keys[0], keys[2]])) == {"SUCCESSFUL"}
    sweep(store)
    assert flow.counts_of(taskset)[1] == 0


@ONLY_POSTGRESQL
def test_a_rescue_is_not_held_up_by_times_that_python_has_none_for() -> None:
    store = get_store()
    taskset, keys = three(store)
    flow.claim_members(store, flow.new_worker(store), taskset)
    WorkerRecord.objects.all().delete()
    write_raw(keys[1], enqueued_at="'infinity'")

    assert rescue(store) == 2

    assert flow.statuses_of(keys) == ["READY", "FAILED", "READY"]


# Wake-ups


@ONLY_POSTGRESQL
def test_a_notification_is_a_hint_whatever_it_says(other_connection: Any) -> None:
    store = get_store()
    store.dedicate()
    listener = store.listen()
    assert listener is not None
    bell = Silence()
    try:
        with other_connection.cursor() as cursor:
            for payload in ("", "x" * 7_999, "'; DROP TABLE x; --", "\x1b[2J\r\n", DEEP[:7_000]):
                cursor.execute("SELECT pg_notify('django_tasksets', %s)", [payload])
                assert listener.wait(10, bell)
            for number in range(2_000):
                cursor.execute("SELECT pg_notify(%s, 'x')", [f"unknown_{number}"])
            assert not listener.wait(0.1, bell)
            # A flood of its own is one hint, or a few.
            for _ in range(2_000):
                cursor.execute("NOTIFY django_tasksets, 'flood'")
        assert listener.wait(10, bell)
    finally:
        listener.close()


class Silence:
    """A bell that never rings."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def fileno(self) -> int:
        return self._reader


@ONLY_SQLITE
def test_no_row_is_blamed_for_what_the_disk_has_done() -> None:
    """SQLite has one class of errors for rows that cannot be read and for files that cannot."""
    store = get_store()
    ids = flow.enqueue(store, 3)

    def fail(execute: Any, sql: str, *arguments: Any) -> Any:
        if sql.lstrip().startswith("SELECT json_"):
            raise OperationalError("disk I/O error")
        return execute(sql, *arguments)

    with connection.execute_wrapper(fail), pytest.raises(OperationalError):
        store.claim(flow.new_worker(store), (), 10)

    assert flow.statuses_of(ids) == ["READY"] * 3
    assert len(store.claim(flow.new_worker(store), (), 10)) == 3
