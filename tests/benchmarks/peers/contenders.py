"""Who takes part."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One line of the table."""

    name: str
    """To choose it by."""
    title: str
    runs_on: str = "peers"
    """The environment: the `peers` one, `node`, or `here`, which is that of this process."""
    script: str
    """Its module, or its file for Node."""
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """The servers on which it is given a place."""
    kind: str | None = None
    """The kind of database on which it makes a place for itself."""
    at_most: int | None = None
    """A count that is large enough for one so slow, or slower the larger it is."""


REFERENCES = ("ours-postgresql", "ours-sqlite", "ours-mysql")
"""Those that the others are compared with."""

CONTENDERS = (
    Contender(
        name="ours-postgresql",
        title="**django-tasksets, PostgreSQL**",
        runs_on="here",
        script="ours",
        kind="postgresql",
    ),
    Contender(
        name="ours-sqlite",
        title="**django-tasksets, SQLite**",
        runs_on="here",
        script="ours",
        kind="sqlite",
    ),
    Contender(
        name="ours-mysql",
        title="**django-tasksets, MariaDB**",
        runs_on="here",
        script="ours",
        kind="mysql",
    ),
    Contender(
        name="floor",
        title="the floor, PostgreSQL",
        runs_on="here",
        script="floors",
        kind="postgresql",
    ),
    Contender(
        name="celery-redis",
        title="Celery, chord, Redis",
        script="celery_redis",
        needs=("redis",),
    ),
    Contender(
        name="celery-django",
        title="Celery, chord, django-celery-results on PostgreSQL, Redis",
        script="celery_django",
        needs=("redis", "postgresql"),
        at_most=1_000,
    ),
    Contender(
        name="huey",
        title="huey, chord, Redis",
        script="huey_redis",
        needs=("redis",),
    ),
    Contender(
        name="pgqueuer",
        title="pgqueuer, counted by hand, PostgreSQL",
        script="pgqueuer_counted",
        needs=("postgresql",),
    ),
    Contender(
        name="django-tasks-db",
        title="django-tasks-db, counted by hand, PostgreSQL",
        script="tasks_db",
        needs=("postgresql",),
        at_most=2_000,
    ),
    Contender(
        name="bullmq",
        title="BullMQ, flow, Redis",
        runs_on="node",
        script="bullmq.mjs",
        needs=("redis",),
    ),
    Contender(
        name="graphile",
        title="graphile-worker, counted by hand, PostgreSQL",
        runs_on="node",
        script="graphile.mjs",
        needs=("postgresql",),
    ),
    Contender(
        name="graphile-bare",
        title="graphile-worker, no results, no callback, PostgreSQL",
        runs_on="node",
        script="graphile.mjs",
        arguments=("bare",),
        needs=("postgresql",),
    ),
)
