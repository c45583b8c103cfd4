"""pgqueuer on PostgreSQL, which has no sets: counted by hand, one statement for each call.

Durable tables, as is its default, and as all others here have them. Calls are enqueued and fetched
in batches, and recorded in batches by itself; asyncpg with a pool, uvloop, async functions. One
process: a second one makes it slower here, as both wait for the one row that is counted down.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import uvloop
from pgqueuer import PgQueuer, Queries
from pgqueuer.models import Job

from tests.benchmarks.floor import Timing
from tests.benchmarks.peers.contest import TIMEOUT, Run, check, started

BATCH = 100
POOL = 16

TABLES = """
    CREATE TABLE counted_set (
        id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, remaining int NOT NULL
    );
    CREATE TABLE counted_result (
        set_id int, position int, value jsonb, PRIMARY KEY (set_id, position)
    )"""
COUNT_DOWN = """
    WITH stored AS (INSERT INTO counted_result VALUES ($1, $2, $3))
    UPDATE counted_set SET remaining = remaining - 1 WHERE id = $1 RETURNING remaining"""
RESULTS = "SELECT value FROM counted_result WHERE set_id = $1 ORDER BY position"
BEGUN = "SELECT pg_notify('callback', $1)"


async def manager() -> PgQueuer:
    """Its tasks; where the server is, asyncpg reads from the environment."""
    pool = await asyncpg.create_pool(min_size=POOL, max_size=POOL)
    queue = PgQueuer.from_asyncpg_pool(pool)

    @queue.entrypoint("add")
    async def add(job: Job) -> None:
        set_id, position, x, y = json.loads(job.payload or b"")
        if await pool.fetchval(COUNT_DOWN, set_id, position, json.dumps(x + y)) == 0:
            await Queries.from_asyncpg_pool(pool).enqueue("total", json.dumps(set_id).encode())

    @queue.entrypoint("total")
    async def total(job: Job) -> None:
        set_id = json.loads(job.payload or b"")
        numbers = [json.loads(value) for (value,) in await pool.fetch(RESULTS, set_id)]
        began = time.time()
        await pool.execute(BEGUN, json.dumps([began, sum(numbers)]))

    return queue


async def work() -> None:
    queue = await manager()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queue.shutdown.set)
    await queue.run(batch_size=BATCH)


@contextmanager
def contender() -> Iterator[Run]:
    uvloop.run(prepare())
    with started("-m", __name__):
        yield lambda count: uvloop.run(run(count))


async def prepare() -> None:
    connection = await asyncpg.connect()
    await Queries.from_asyncpg_connection(connection).install()
    await connection.execute(TABLES)
    await connection.close()


async def run(count: int) -> Timing:
    connection = await asyncpg.connect()
    queries = Queries.from_asyncpg_connection(connection)
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    await connection.add_listener("callback", lambda *notice: told.set_result(notice[-1]))
    began = time.time()
    async with connection.transaction():
        set_id = await connection.fetchval(
            "INSERT INTO counted_set (remaining) VALUES ($1) RETURNING id", count
        )
        payloads = [json.dumps([set_id, i, i, i]).encode() for i in range(count)]
        await queries.enqueue(["add"] * count, payloads, [0] * count)
    enqueued = time.time()
    callback_began, found = json.loads(await asyncio.wait_for(told, TIMEOUT))
    await connection.close()
    check(found, count)
    return Timing(enqueued - began, callback_began - began)


if __name__ == "__main__":
    uvloop.run(work())
