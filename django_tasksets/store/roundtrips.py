"""Two statements in one round trip to PostgreSQL, by libpq's pipeline mode.

psycopg has pipelines of its own; to go into one and out again takes them as long as the round trip
that would be saved.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any, Final

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

logger = logging.getLogger("django_tasksets")

WENT_WELL: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.PIPELINE_SYNC)


def execute_both(
    session: psycopg.Connection[Any], statement: str, values: Sequence[Any], hint: str
) -> None:
    """Execute a statement with `values` for its $1, $2 and so on; then, in a transaction of its own
    and whatever came of the first, `hint`. Each is committed by itself, so that locks which the
    second takes are not held while the first waits for the disk. Outside a transaction.

    Raises psycopg's errors if the first one fails. That the second one does is only logged, even
    if the session ends with it: what is committed is committed.
    """
    pgconn = session.pgconn
    transformer = Transformer(session)
    parameters = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
    results: list[PGresult] = []
    with session.lock:
        try:
            pgconn.enter_pipeline_mode()
            pgconn.send_query_params(
                statement.encode(), parameters, transformer.types, transformer.formats
            )
            pgconn.pipeline_sync()
            pgconn.send_query_params(hint.encode(), None)
            pgconn.pipeline_sync()
            session.wait(_collect(pgconn, results))
        except psycopg.Error as error:
            _raise_if_failed(session, _until_sync(results))
            if not any(map(_is_sync, results)):
                raise
            logger.warning("wake-up not sent error=%r", error)
            return
        finally:
            _leave(session)
    first = _until_sync(results)
    _raise_if_failed(session, first)
    try:
        _raise_if_failed(session, results[len(first) :])
    except psycopg.Error as error:
        logger.warning("wake-up not sent error=%r", error)


def _collect(pgconn: PGconn, results: list[PGresult]) -> PQGen[None]:
    """Add the results of two statements with a sync behind each, as they come."""
    yield from generators.send(pgconn)
    while sum(map(_is_sync, results)) < 2:
        found = yield from generators.fetch_many(pgconn)
        if not found:
            raise psycopg.OperationalError("the connection is lost")
        results += found


def _is_sync(result: PGresult) -> bool:
    return result.status == ExecStatus.PIPELINE_SYNC


def _until_sync(results: Iterable[PGresult]) -> list[PGresult]:
    """What came of the first statement: one result, or more if its commit failed."""
    return list(takewhile(lambda result: not _is_sync(result), results))


def _raise_if_failed(session: psycopg.Connection[Any], results: Iterable[PGresult]) -> None:
    for result in results:
        if result.status not in WENT_WELL:
            raise error_from_result(result, encoding=session.info.encoding)


def _leave(session: psycopg.Connection[Any]) -> None:
    """End the pipeline; a session in which that cannot be done is of no more use."""
    try:
        session.pgconn.exit_pipeline_mode()
    except psycopg.Error:
        with suppress(psycopg.Error):
            session.close()
