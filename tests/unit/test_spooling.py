"""Rows are kept in memory while they are few and small."""

from __future__ import annotations

import tracemalloc
from datetime import timedelta
from typing import Any

from django.utils import timezone

from django_tasksets.spooling import BYTES_IN_MEMORY, ROWS_IN_MEMORY, Spool
from tests import flow

NOW = timezone.now()
UNLIKE: list[dict[str, Any]] = [
    {"position": None},
    {"position": -3, "role": "ON_FINISH", "status": "WAITING"},
    {"args": '["tab\t, line\n, end\r"]'},
    {"kwargs": '{"name": "\u00e9\U0001f600"}'},
    {
        "queue_name": "caf\u00e9\t",
        "task_name": "a\nb",
        "priority": -5,
        "weight": 7,
        "generation": 2,
    },
    {"run_after": NOW + timedelta(days=1), "status": "SCHEDULED"},
    {"expires_at": NOW.astimezone(timezone.get_fixed_timezone(-90)), "claim_order": -(2**62)},
    {"options": '{"a":"' + "x" * 2000 + '"}', "position": 4},
    {"links": '{"link":[{"task":"x\ty"}]}'},
    {"taskset_id": None, "args": "", "kwargs": ""},
]


def test_what_comes_out_is_what_went_in() -> None:
    rows = [flow.new_row(position=index) for index in range(ROWS_IN_MEMORY + 10)]
    rows[5:5] = [rows[0]._replace(**change) for change in UNLIKE]
    with Spool() as spool:
        for row in rows:
            spool.append(row)
        assert len(spool) == len(rows)
        assert list(spool) == rows
        spool.append(rows[0])
        assert list(spool) == [*rows, rows[0]]


def test_a_few_large_rows_are_not_kept_in_memory() -> None:
    size = 1_000_000
    tracemalloc.start()
    try:
        with Spool() as spool:
            for index in range(4 * BYTES_IN_MEMORY // size):
                spool.append(flow.new_row(args=f'["{index % 10}' + "x" * size))
            _, peak = tracemalloc.get_traced_memory()
            assert sum(len(row.args) for row in spool) > 4 * BYTES_IN_MEMORY
    finally:
        tracemalloc.stop()
    assert peak < 2 * BYTES_IN_MEMORY
