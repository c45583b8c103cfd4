"""What the tests of the admin have in common: rows to look at, users to look, pages to read."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_tasksets.ids import new_id
from django_tasksets.models import SubtaskRecord, TaskSetRecord, WorkerRecord
from django_tasksets.statuses import FINISHED, Role, callback_position, set_outcome

SETS, SUBTASKS, WORKERS = "tasksetrecord", "subtaskrecord", "workerrecord"
ATTACK = "<img src=x onerror=alert(1)>\"'&"


def make_set(statuses: Iterable[str] = (), **columns: Any) -> TaskSetRecord:
    """A set with a member in each of these statuses, and counts that are true of them."""
    statuses = list(statuses)
    counts = {name: statuses.count(name.upper()) for name in ("successful", "failed", "revoked")}
    remaining = sum(status not in FINISHED for status in statuses)
    now = timezone.now()
    values: dict[str, Any] = {
        "id": new_id(),
        "total": len(statuses),
        "remaining": remaining,
        **counts,
        "sealed_at": now,
        "started_at": now - timedelta(seconds=30),
        "enqueued_at": now - timedelta(seconds=31),
    }
    if not remaining:
        values["status"] = set_outcome(failed=counts["failed"], revoked=counts["revoked"])
        values["finished_at"] = now
    record = TaskSetRecord.objects.create(**{**values, **columns})
    SubtaskRecord.objects.bulk_create(
        [make_subtask(record, position, status) for position, status in enumerate(statuses)]
    )
    return record


def make_subtask(
    taskset: TaskSetRecord | None, position: int | None, status: str, **columns: Any
) -> SubtaskRecord:
    """A row that is not stored yet, as it looks in that status."""
    now = timezone.now()
    values: dict[str, Any] = {"enqueued_at": now, "reason": "", "errors": "", "claims": 0}
    values |= {"attempts": 0, "retries": 0, "crashes": 0, "revoke_flag": 0}
    if status in ("RUNNING", *FINISHED):
        values |= {"claims": 1, "claimed_at": now, "worker_id": new_id()}
    if status in FINISHED:
        values |= {"attempts": 1, "started_at": now, "finished_at": now}
    return SubtaskRecord(
        **{
            "taskset": taskset,
            "position": position,
            "task_name": "tests.tasks.add",
            "status": status,
            "error_fingerprint": "",
            **values,
            **columns,
        }
    )


def make_callback(taskset: TaskSetRecord, role: Role, status: str, **columns: Any) -> SubtaskRecord:
    """A stored callback of a set."""
    position = callback_position(role, taskset.generation)
    row = make_subtask(taskset, position, status, role=role, **columns)
    row.save(force_insert=True)
    return row


def make_worker(**columns: Any) -> WorkerRecord:
    """A worker that has just given a heartbeat."""
    return WorkerRecord.objects.create(**{"host": "here", "pid": 1, **columns})


def user_with(*codenames: str) -> User:
    """A member of the staff with these permissions and no others."""
    user: User = get_user_model().objects.create_user(f"u{uuid.uuid4().hex[:8]}", is_staff=True)
    permissions = Permission.objects.filter(
        content_type__app_label="tasksets", codename__in=codenames
    )
    assert permissions.count() == len(codenames)
    user.user_permissions.set(permissions)
    return user


def signed_in(user: User) -> Client:
    """A browser in which the user has signed in."""
    client = Client()
    client.force_login(user)
    return client


def superuser_client() -> Client:
    """A browser of someone who may do everything."""
    return signed_in(get_user_model().objects.create_superuser(f"s{uuid.uuid4().hex[:8]}"))


def list_url(model: str) -> str:
    return reverse(f"admin:tasksets_{model}_changelist")


def page_url(model: str, key: object, name: str = "change") -> str:
    return reverse(f"admin:tasksets_{model}_{name}", args=[key])


def queries_of(client: Client, url: str) -> int:
    """How many queries a page takes, once caches are warm."""
    assert client.get(url).status_code == 200
    with CaptureQueriesContext(connection) as queries:
        assert client.get(url).status_code == 200
    return len(queries)


def messages_of(response: Any) -> list[str]:
    """What the user is told on the page that a redirect leads to."""
    return [str(message) for message in response.context["messages"]]


class Page(HTMLParser):
    """A page as a browser reads it: its elements, and its text without markup."""

    def __init__(self, response: Any) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._text: list[str] = []
        self.status = response.status_code
        self.feed(response.content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    @property
    def text(self) -> str:
        """Its text, with single spaces."""
        return re.sub(r"\s+", " ", " ".join(self._text))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """The attributes of all such elements."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key) == value for key, value in wanted.items())
        ]

    def links(self) -> set[str]:
        """Where its links lead."""
        return {attributes["href"] or "" for attributes in self.all("a") if "href" in attributes}

    def posts(self) -> set[str]:
        """Where its buttons post."""
        return {b["formaction"] or "" for b in self.all("button") if "formaction" in b}
