"""What nobody should write into a row, and how it gets there; for the tests of security."""

from __future__ import annotations

import html
import json
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connection

from django_tasksets.announcing import Announcer
from django_tasksets.execution import Worker, execute
from django_tasksets.ids import new_id
from django_tasksets.models import SubtaskRecord
from django_tasksets.recording import Recorded, record
from django_tasksets.store.contract import Store
from tests import flow

DEEP = "[" * 100_000 + "]" * 100_000
"""JSON that is nested deeper than anything can be read."""
HUGE = "9" * 5_000
"""An integer that Python does not read."""
TRAP = "hostile_trap"
"""A module that must never be imported."""

MARKUP = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    '" autofocus onfocus="alert(1)',
    "</pre></textarea></title></style><iframe src=javascript:alert(1)>",
    "</script><script>alert(1)//",
    "javascript:alert(1)",
    "{{ 7|add:7 }}{% debug %}",
    "&lt;b&gt;&#60;u&#62;",
    "<!--<b>-->",
    "\N{RIGHT-TO-LEFT OVERRIDE}<u>\N{LINE SEPARATOR}",
)
"""Texts that would be markup, or leave an attribute, if anybody forgot to escape them."""
CONTROLS = (
    "a\rb", "a\nb", "a\r\nWARNING forged line", "a\x1b[2Jb", "a\x1b]0;title\x07b",
    "a\N{LINE SEPARATOR}b", "a\N{PARAGRAPH SEPARATOR}b", "a\x85b", "a\x0b\x0cb", "a\x9b31mb",
    "a\N{RIGHT-TO-LEFT OVERRIDE}b", "a\x7fb",
)  # fmt: skip
"""Texts that would begin a line of their own in a log, or command a terminal."""


def write(key: uuid.UUID, **columns: Any) -> None:
    """Write columns of a subtask's row behind everybody's back."""
    assert SubtaskRecord.objects.filter(id=key).update(**columns) == 1


def write_raw(key: uuid.UUID, **expressions: str) -> None:
    """The same in SQL, for what the ORM would not let pass."""
    table = connection.ops.quote_name(SubtaskRecord._meta.db_table)
    changes = ", ".join(f"{name} = {sql}" for name, sql in expressions.items())
    stored = key if connection.vendor == "postgresql" else flow_key(key)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {changes} WHERE id = %s", [stored])
        assert cursor.rowcount == 1


def flow_key(key: uuid.UUID) -> Any:
    """An id as the driver takes it."""
    field: Any = SubtaskRecord._meta.pk
    return field.get_db_prep_value(key, connection)


def work_off(store: Store, rounds: int = 1) -> Recorded:
    """As a worker does, claim all that is READY at once, execute it, record it as one batch, and
    tell what came of it."""
    recorded, announcer = Recorded(), Announcer(store)
    for _ in range(rounds):
        worker_id = flow.new_worker(store)
        worker = Worker(store=store, id=worker_id, hostname="here")
        outcomes = [execute(worker, one) for one in store.claim(worker_id, (), 500)]
        done = record(store, worker_id, outcomes)
        announcer.announce(done)
        recorded.absorb(done)
    return recorded


@contextmanager
def trap(directory: Path) -> Iterator[None]:
    """A module that can be imported, and says so if it has been."""
    path = directory / f"{TRAP}.py"
    path.write_text(
        "import enum\n"
        "class Enum(enum.Enum):\n    A = 1\n"
        "class Error(Exception):\n    pass\n"
        "def task(*args):\n    raise SystemExit\n"
    )
    sys.path.insert(0, str(directory))
    try:
        yield
        assert TRAP not in sys.modules
    finally:
        sys.path.remove(str(directory))
        sys.modules.pop(TRAP, None)


def error_line(**fields: Any) -> str:
    """A line of the column `errors`."""
    return json.dumps({"worker_id": str(new_id()), "attempt": 1, **fields}) + "\n"


def is_escaped(text: str, payloads: Sequence[str] = MARKUP) -> bool:
    """Whether none of the payloads that hold markup stands in the source of a page."""
    return not any(payload in text for payload in payloads if html.escape(payload) != payload)
