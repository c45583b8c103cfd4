"""Who may not look or steer is refused everywhere alike, whether there is a row or not."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, reverse

from demo.models import Census
from django_tasksets import TaskSet
from django_tasksets.ids import new_id
from django_tasksets.models import (
    ErrorGroupRecord,
    ProgressSample,
    SubtaskRecord,
    TaskSetRecord,
    WorkerRecord,
)
from tests.database.admin_pages import SETS, make_set, make_worker, signed_in, user_with
from tests.tasks import noop

pytestmark = pytest.mark.django_db

OURS = (TaskSetRecord, SubtaskRecord, WorkerRecord)
METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
UNKNOWN = "00000000-0000-7000-8000-000000000000"


def names_of(model: Any) -> list[str]:
    """The names of all addresses of a model's admin."""
    patterns = admin.site.get_model_admin(model).get_urls()
    return [p.name for p in patterns if isinstance(p, URLPattern) and p.name is not None]


VIEWS = sorted({(model.__name__, name) for model in OURS for name in names_of(model)})


@pytest.fixture
def rows() -> dict[str, Any]:
    """A row of each kind, by its model."""
    taskset = make_set(["FAILED", "READY"], name="Payroll")
    subtask = SubtaskRecord.objects.get(taskset=taskset, position=0)
    worker = make_worker(host="payroll-host")
    return {"TaskSetRecord": taskset, "SubtaskRecord": subtask, "WorkerRecord": worker}


def url_of(name: str, key: object) -> str:
    """The address, about that row if it is about one."""
    if name.endswith(("_changelist", "_add", "_progress")):
        return f"{reverse(f'admin:{name}')}?id={key}&taskset={key}&q={key}"
    return reverse(f"admin:{name}", args=[key])


def everything() -> list[Any]:
    models: tuple[Any, ...] = (*OURS, ErrorGroupRecord, ProgressSample)
    return [list(model._default_manager.order_by("pk").values()) for model in models]


def answer(client: Client, method: str, url: str, key: object) -> tuple[int, str, str]:
    """What is answered, less the key that was asked for."""
    response = getattr(client, method)(url)
    body = b"".join(response) if response.streaming else response.content
    where = response.headers.get("Location", "")
    return response.status_code, where.replace(str(key), "K"), body.decode().replace(str(key), "K")


def test_all_views_are_looked_at() -> None:
    names = {name.rpartition("_")[2] for _, name in VIEWS}
    buttons = {"pause", "resume", "retry", "rerun", "revoke", "forget", "delete"}
    assert names == buttons | {"changelist", "add", "history", "change", "progress"}


def stranger() -> User | None:
    return None


def customer() -> User:
    user: User = get_user_model().objects.create_user("customer")
    return user


def customer_with_permissions() -> User:
    user = user_with("view_tasksetrecord", "view_subtaskrecord", "delete_tasksetrecord")
    user.is_staff = False
    user.save()
    return user


def retired() -> User:
    user: User = get_user_model().objects.create_superuser("retired")
    user.is_active = False
    user.save()
    return user


def clerk() -> User:
    return user_with()


def steersman() -> User:
    """Who may do everything, but look at nothing."""
    return user_with(
        "revoke_tasksetrecord", "pause_tasksetrecord", "retry_tasksetrecord",
        "rerun_tasksetrecord", "delete_tasksetrecord", "revoke_subtaskrecord",
        "retry_subtaskrecord", "view_subtask_values",
    )  # fmt: skip


OUTSIDE = (stranger, customer, customer_with_permissions, retired)
INSIDE = (clerk, steersman)


@pytest.mark.parametrize("who", [*OUTSIDE, *INSIDE])
@pytest.mark.parametrize(("model", "name"), VIEWS)
def test_who_may_not_learns_nothing_and_changes_nothing(
    model: str, name: str, who: Any, rows: dict[str, Any]
) -> None:
    user = who()
    client = Client() if user is None else signed_in(user)
    before = everything()

    for method in METHODS:
        known = answer(client, method, url_of(name, rows[model].pk), rows[model].pk)
        unknown = answer(client, method, url_of(name, UNKNOWN), UNKNOWN)
        fresh = new_id()
        other = answer(client, method, url_of(name, fresh), fresh)

        assert known == unknown == other, method
        status, where, body = known
        if who in OUTSIDE and not name.endswith("_progress"):
            assert status == 302
            assert where.startswith("/admin/login/")
        else:
            assert status == 403
        assert "Payroll" not in body
        assert "payroll-host" not in body
    assert everything() == before


@pytest.mark.parametrize("key", ["0", "x", "../../1", "'", "%00", "1 OR 1=1", "9" * 60, "\u2028"])
@pytest.mark.parametrize(
    "name", sorted(name for _, name in VIEWS if name.endswith(("_change", "_history")))
)
def test_a_key_that_is_none_is_no_error(name: str, key: str, rows: dict[str, Any]) -> None:
    url = url_of(name, UNKNOWN).replace(UNKNOWN, key.replace("/", "_2F"))

    assert signed_in(user_with()).get(url).status_code in (403, 404)
    with_permission = signed_in(
        user_with("view_tasksetrecord", "view_subtaskrecord", "view_workerrecord")
    )
    assert with_permission.get(url).status_code in (302, 404)


@pytest.mark.parametrize(("model", "name"), VIEWS)
def test_nothing_is_changed_without_the_token(model: str, name: str, rows: dict[str, Any]) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(get_user_model().objects.create_superuser("root"))
    before = everything()

    for method in ("post", "put", "patch", "delete"):
        response = getattr(client, method)(url_of(name, rows[model].pk))
        assert response.status_code in (403, 405)
    assert everything() == before


@pytest.mark.parametrize(("model", "name"), VIEWS)
@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_what_is_safe_by_its_name_is_safe(
    method: str, model: str, name: str, rows: dict[str, Any]
) -> None:
    client = signed_in(get_user_model().objects.create_superuser("root"))
    before = everything()

    getattr(client, method)(url_of(name, rows[model].pk), {"confirmed": "1", "post": "yes"})

    assert everything() == before


def test_the_bars_tell_of_no_set_to_who_may_view_none(rows: dict[str, Any]) -> None:
    url = reverse("admin:tasksets_progress")
    key = rows["TaskSetRecord"].pk

    answers = {
        answer(signed_in(user_with("view_subtaskrecord")), "get", f"{url}?id={each}", each)
        for each in (key, UNKNOWN, "x")
    }

    assert len(answers) == 1
    assert answers.pop()[0] == 403


def test_an_action_reaches_only_rows_of_its_own_list(rows: dict[str, Any]) -> None:
    """Keys of subtasks and of workers are none of sets."""
    client = signed_in(user_with("view_tasksetrecord", "delete_tasksetrecord"))
    before = everything()

    for key in (rows["SubtaskRecord"].pk, rows["WorkerRecord"].pk, UNKNOWN):
        client.post(
            reverse(f"admin:tasksets_{SETS}_changelist"),
            {"action": "delete_selected", "_selected_action": [key], "confirmed": "1"},
        )

    assert everything() == before


# The demo, which is open to everybody who can reach it


@pytest.fixture
def census() -> Census:
    return Census.objects.create(
        path="/somewhere", taskset_id=TaskSet([noop.subtask()]).apply_async().id
    )


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.parametrize("name", ["census", "progress"])
def test_the_demos_pages_are_only_looked_at(name: str, method: str, census: Census) -> None:
    before = everything()

    for key in (census.pk, 10**9):
        url = reverse(f"demo:{name}", args=[key])
        assert getattr(Client(), method)(url).status_code == 405
    assert everything() == before


def test_the_demo_begins_nothing_without_the_token(tmp_path: Any) -> None:
    client = Client(enforce_csrf_checks=True)

    assert client.post(reverse("demo:index"), {"path": str(tmp_path)}).status_code == 403
    assert client.get(reverse("demo:index"), {"path": str(tmp_path)}).status_code == 200
    assert not TaskSetRecord.objects.exists()


@pytest.mark.parametrize("key", [10**9, 2**63, 10**30])
@pytest.mark.parametrize("name", ["census", "progress"])
def test_a_census_that_is_not_there_is_not_found(name: str, key: int, census: Census) -> None:
    assert Client().get(reverse(f"demo:{name}", args=[key])).status_code == 404
