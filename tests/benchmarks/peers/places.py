"""Where a contender may work: a database of its own on each server that it needs.

Which ones they are is told in the environment, in the variables that the servers' own clients read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from tests import services
from tests.benchmarks import lab

REDIS_DATABASES = 16
"""As many as Redis has where nobody says otherwise."""
MARK = "tasksets-benchmark"


class NoPlace(Exception):
    """A server does not answer, or has no room."""


@contextmanager
def place(needs: Collection[str]) -> Iterator[dict[str, str]]:
    """Variables that lead to empty databases on these servers, which are gone after the block."""
    with ExitStack() as stack:
        variables: dict[str, str] = {}
        if "postgresql" in needs:
            variables |= stack.enter_context(_postgresql())
        if "redis" in needs:
            variables |= stack.enter_context(_redis())
        yield variables


@contextmanager
def _postgresql() -> Iterator[dict[str, str]]:
    kind = services.DATABASES["postgresql"]
    if reason := kind.absent():
        raise NoPlace(reason)
    server = kind.server or {}
    with lab.new_database("postgresql", "_peer") as name:
        yield {
            **{f"PG{key}": value for key, value in server.items() if value},
            "PGDATABASE": name,
            services.DATABASE: "postgresql",
            services.DATABASE_NAME: name,
        }


@contextmanager
def _redis() -> Iterator[dict[str, str]]:
    """One that nobody uses: what is in another one is somebody's."""
    if reason := services.redis_absent():
        raise NoPlace(reason)

    import redis

    for number in reversed(range(REDIS_DATABASES)):
        url = urlsplit(services.REDIS_URL)._replace(path=f"/{number}").geturl()
        client = redis.Redis.from_url(url)
        if client.dbsize() == 0:
            client.set(MARK, os.getpid())
            break
        client.close()
    else:
        raise NoPlace(f"none of {REDIS_DATABASES} databases of Redis is empty")
    try:
        yield {"REDIS_URL": url}
    finally:
        client.flushdb()
        client.close()
