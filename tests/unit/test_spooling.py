"""Rows are kept in memory while they are few and small."""

from __future__ import annotations

import tracemalloc

from django_tasksets.spooling import BYTES_IN_MEMORY, ROWS_IN_MEMORY, Spool
from tests import flow


def test_what_comes_out_is_what_went_in() -> None:
    rows = [flow.new_row(position=index) for index in range(ROWS_IN_MEMORY + 10)]
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
