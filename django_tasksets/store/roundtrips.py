"""Two statements in one round trip to PostgreSQL, by libpq's pipeline mode.

psycopg has pipelines of its own; to go into one and out again takes them as long as the round trip
that would be saved.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

logger = logging.getLogger("django_tasksets")

WENT_WELL: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


def execute_both(
    session: psycopg.Connection[Any], statement: str, values: Sequence[Any], hint: str
) -> None:
    """Execute a statement with `values` for its $1, $2 and so on; then, in a transaction of its own
    and whatever came of the first, `hint`. Each is committed by itself, so that locks which the
    second takes are not held while the first waits for the disk. Outside a transaction.

    Raises psycopg's errors if the first one fails. That the second one does is only logged.
    """
    pgconn = session.pgconn
    transformer = Transformer(session)
    parameters = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
    with session.lock:
        pgconn.enter_pipeline_mode()
        try:
            pgconn.send_query_params(
                statement.encode(), parameters, transformer.types, transformer.formats
            )
            pgconn.pipeline_sync()
            pgconn.send_query_params(hint.encode(), None)
            pgconn.pipeline_sync()
            first, second = session.wait(_answers(pgconn))
        finally:
            _leave(session)
    if first.status not in WENT_WELL:
        raise error_from_result(first, encoding=session.info.encoding)
    if second.status not in WENT_WELL:
        error = error_from_result(second, encoding=session.info.encoding)
        logger.warning("wake-up not sent error=%r", error)


def _answers(pgconn: PGconn) -> PQGen[tuple[PGresult, PGresult]]:
    """The results of two statements with a sync behind each."""
    yield from generators.send(pgconn)
    found: list[PGresult] = []
    syncs = 0
    while syncs < 2:
        for result in (yield from generators.fetch_many(pgconn)):
            if result.status == ExecStatus.PIPELINE_SYNC:
                syncs += 1
            else:
                found.append(result)
    first, second = found
    return first, second


def _leave(session: psycopg.Connection[Any]) -> None:
    """End the pipeline; a session in which that cannot be done is of no more use."""
    if session.pgconn.status == ConnStatus.BAD:
        return
    try:
        session.pgconn.exit_pipeline_mode()
    except psycopg.Error:
        with suppress(psycopg.Error):
            session.close()
