"""Each system check by its id, with the message that a user sees; and silence on good settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache.backends.base import BaseCache
from django.core.checks import CheckMessage, Tags, run_checks
from django.core.checks.registry import registry
from django.db import connection
from django.db.utils import ConnectionHandler

from django_tasksets import checks

if TYPE_CHECKING:
    from pytest_django import DjangoDbBlocker
    from pytest_django.fixtures import Settings

GOOD_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL;",
}
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
not_callable = "a string"


class RedisLookalike(BaseCache):
    """What the check takes for a cache of django-redis, without a need to install it."""


RedisLookalike.__module__ = "django_redis.cache"


@pytest.fixture(autouse=True)
def sound_project(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that no check complains about; each test breaks one thing."""
    settings.TASKSETS = {}
    use_databases(monkeypatch, default=sqlite(**GOOD_OPTIONS))


@pytest.fixture
def unblocked(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Lets a check ask a database that the test has made."""
    with django_db_blocker.unblock():
        yield


def sqlite(name: str | Path = ":memory:", **options: str) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}


def use_databases(patch: pytest.MonkeyPatch, **databases: dict[str, Any]) -> ConnectionHandler:
    # A handler of our own: the real one keeps its connections whatever the settings say later.
    handler = ConnectionHandler(databases)
    patch.setattr(checks, "connections", handler)
    return handler


def use_vendor(
    patch: pytest.MonkeyPatch,
    vendor: str,
    options: dict[str, Any],
    answer: tuple[str, str] = ("", ""),
    collation: str = "utf8mb4_uca1400_ai_ci",
) -> None:
    """A stand-in for a connection, so that the rules for MySQL are tested without a server."""

    class Cursor:
        def __enter__(self) -> Cursor:
            return self

        def __exit__(self, *exc: object) -> None:
            pass

        def execute(self, statement: str) -> None:
            answers = {"SHOW VARIABLES LIKE 't%isolation'": answer}
            self.answer = answers.get(statement, (collation,))

        def fetchone(self) -> tuple[str, ...]:
            return self.answer

    class Handler(dict[str, Any]):
        settings = ("default",)

    connection = SimpleNamespace(vendor=vendor, settings_dict={"OPTIONS": options}, cursor=Cursor)
    patch.setattr(checks, "connections", Handler(default=connection))


def found(messages: list[CheckMessage]) -> list[tuple[str | None, str, str | None]]:
    return [(message.id, message.msg, message.hint) for message in messages]


def run(*, databases: list[str] | None = None) -> list[CheckMessage]:
    """Our checks as `manage.py check` runs them, sorted by id.

    With `databases` as under `--database`; of the checks with that tag only ours, since those of
    other apps look into the real databases.
    """
    messages = run_checks(tags=[checks.TAG], databases=[])
    if databases is not None:
        messages += checks.check_database_itself(databases=databases)
    return sorted(messages, key=lambda message: str(message.id))


def test_the_checks_are_registered() -> None:
    registered = {check for check in registry.get_checks() if checks.TAG in check.tags}

    assert registered == {
        checks.check_settings,
        checks.check_database,
        checks.check_redis,
        checks.check_progress_permission,
    }
    assert checks.check_database_itself in registry.get_checks()
    assert list(checks.check_database_itself.tags) == [Tags.database]


def test_silent_without_settings(settings: Settings, unblocked: None) -> None:
    del settings.TASKSETS

    assert run(databases=["default"]) == []


def test_silent_on_a_full_good_config(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unblocked: None
) -> None:
    handler = use_databases(
        monkeypatch, default=sqlite(), jobs=sqlite(tmp_path / "jobs", **GOOD_OPTIONS)
    )
    monkeypatch.setattr(checks, "find_spec", lambda _: object())
    settings.CACHES = {"hints": {"BACKEND": f"{__name__}.RedisLookalike"}}
    settings.TASKSETS = {
        "DATABASE": "jobs",
        "MAX_VALUE_BYTES": 1,
        "RETENTION": timedelta(0),
        "FAILED_RETENTION": None,
        "MAX_RETRIES": None,
        "RETRY_DELAY": 0,
        "MAX_CRASHES": 0,
        "TIME_LIMIT": 0.5,
        "GRACE": 0,
        "LEASE": 3,
        "ALWAYS_EAGER": True,
        "DEFAULT_QUEUE": "q" * 64,
        "ENGINE": "celery",
        "ENGINE_OPTIONS": {"app": "project.celery.app"},
        "WAKEUPS": "redis",
        "REDIS": "hints",
        "PROGRESS_PERMISSION": f"{__name__}.found",
        "REDACT": ["password", "token"],
    }

    assert run(databases=["default", "jobs"]) == []
    handler.close_all()


@pytest.mark.parametrize("value", [None, [], "LEASE=5"])
def test_e001_not_a_dict(settings: Settings, value: object) -> None:
    settings.TASKSETS = value

    assert found(run()) == [
        (
            "tasksets.E001",
            f"TASKSETS must be a dict, not {type(value).__name__}.",
            'Write TASKSETS = {}, or TASKSETS = {"MAX_RETRIES": 5}.',
        )
    ]


@pytest.mark.parametrize(
    ("key", "meant"),
    [("MAX_RETRYS", "MAX_RETRIES"), ("lease", "LEASE"), ("FAILED_RETENTIONS", "FAILED_RETENTION")],
)
def test_e002_unknown_key(settings: Settings, key: str, meant: str) -> None:
    settings.TASKSETS = {key: 5}

    assert found(run()) == [
        ("tasksets.E002", f"TASKSETS has an unknown key, {key!r}.", f"Did you mean {meant!r}?")
    ]


@pytest.mark.parametrize("key", ["XYZ", 7])
def test_e002_lists_the_keys_when_none_is_close(settings: Settings, key: object) -> None:
    settings.TASKSETS = {key: 5}

    (message,) = run()

    assert message.id == "tasksets.E002"
    assert message.msg == f"TASKSETS has an unknown key, {key!r}."
    assert str(message.hint).startswith("There are: ALWAYS_EAGER, DATABASE, DEFAULT_QUEUE, ")
    assert str(message.hint).endswith(", WAKEUPS.")


@pytest.mark.parametrize(
    ("key", "value", "words", "default"),
    [
        ("LEASE", "60", "a number, not str", "60"),
        ("LEASE", True, "a number, not bool", "60"),
        ("LEASE", None, "a number, not NoneType", "60"),
        ("MAX_VALUE_BYTES", 1.5, "a whole number, not float", "262144"),
        ("MAX_RETRIES", "3", "a whole number or None, not str", "3"),
        ("RETENTION", 14, "a timedelta or None, not int", repr(timedelta(days=14))),
        ("TIME_LIMIT", timedelta(seconds=5), "a number or None, not timedelta", "None"),
        ("ALWAYS_EAGER", 1, "True or False, not int", "False"),
        ("ENGINE", None, "a string, not NoneType", "'database'"),
        ("ENGINE_OPTIONS", "redis://:secret@host", "a dict, not str", "{}"),
        ("REDIS", {"url": ""}, "a string or None, not dict", "None"),
        ("REDACT", "password", "a list or tuple of strings, not str", "()"),
        ("REDACT", ("a", 1), "a list or tuple of strings, not tuple", "()"),
    ],
)
def test_e003_wrong_type(
    settings: Settings, key: str, value: object, words: str, default: str
) -> None:
    settings.TASKSETS = {key: value}

    assert found(run()) == [
        (
            "tasksets.E003",
            f"TASKSETS[{key!r}] must be {words}.",
            f"Leave it out for its default, {default}.",
        )
    ]


@pytest.mark.parametrize(
    ("key", "value", "rule", "default"),
    [
        ("MAX_VALUE_BYTES", 0, "more than 0, not 0", "262144"),
        ("POLL_INTERVAL", -0.5, "more than 0, not -0.5", "0.5"),
        ("TIME_LIMIT", 0, "more than 0, not 0", "None"),
        ("LEASE", 2.9, "at least 3, not 2.9", "60"),
        ("MAX_RETRIES", -1, "at least 0, not -1", "3"),
        ("GRACE", float("nan"), "finite, not nan", "25"),
        ("SWEEP_INTERVAL", float("inf"), "finite, not inf", "60"),
        (
            "RETENTION",
            timedelta(days=-1),
            "at least 0, not datetime.timedelta(days=-1)",
            repr(timedelta(days=14)),
        ),
        ("REDIS_PREFIX", "", "a string that is not empty, not ''", "'tasksets:'"),
        ("DEFAULT_QUEUE", "q" * 65, f"at most 64 characters long, not {'q' * 65!r}", "'default'"),
    ],
)
def test_e004_out_of_range(
    settings: Settings, key: str, value: object, rule: str, default: str
) -> None:
    settings.TASKSETS = {key: value}

    assert found(run()) == [
        (
            "tasksets.E004",
            f"TASKSETS[{key!r}] must be {rule}.",
            f"Leave it out for its default, {default}.",
        )
    ]


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("ENGINE", "Database", "Did you mean 'database'?"),
        ("ENGINE", "kafka", "There are: celery, database, django_tasks."),
        ("WAKEUPS", "notifi", "Did you mean 'notify'?"),
    ],
)
def test_e005_unknown_choice(settings: Settings, key: str, value: str, hint: str) -> None:
    settings.TASKSETS = {key: value}

    assert found(run()) == [
        ("tasksets.E005", f"TASKSETS[{key!r}] is {value!r}, which means nothing.", hint)
    ]


def test_e006_database_does_not_exist(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    use_databases(monkeypatch, default=sqlite(), jobs=sqlite())
    settings.TASKSETS = {"DATABASE": "job"}

    assert found(run(databases=["default", "jobs"])) == [
        (
            "tasksets.E006",
            "TASKSETS['DATABASE'] is 'job', which is not in DATABASES.",
            "Did you mean 'jobs'?",
        )
    ]


def test_e007_redis_wake_ups_without_redis(settings: Settings) -> None:
    settings.TASKSETS = {"WAKEUPS": "redis"}

    assert found(run()) == [
        (
            "tasksets.E007",
            "TASKSETS['WAKEUPS'] is 'redis', but TASKSETS['REDIS'] names no cache.",
            "Set REDIS to the alias of a django-redis cache.",
        )
    ]


def test_e008_django_redis_is_not_installed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _: None)
    settings.TASKSETS = {"REDIS": "default"}

    assert found(run()) == [
        (
            "tasksets.E008",
            "TASKSETS['REDIS'] is 'default', but django-redis is not installed.",
            'Run: pip install "django-tasksets[redis]"',
        )
    ]


def test_e009_redis_names_no_cache(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _: object())
    settings.CACHES = {"default": {"BACKEND": LOCMEM}}
    settings.TASKSETS = {"REDIS": "redis"}

    assert found(run()) == [
        (
            "tasksets.E009",
            "TASKSETS['REDIS'] is 'redis', which is not in CACHES.",
            "There are: default.",
        )
    ]


@pytest.mark.parametrize("backend", [LOCMEM, "no.such.Backend"])
def test_e010_redis_names_another_kind_of_cache(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _: object())
    settings.CACHES = {"default": {"BACKEND": backend}}
    settings.TASKSETS = {"REDIS": "default"}

    assert found(run()) == [
        (
            "tasksets.E010",
            f"TASKSETS['REDIS'] is 'default', whose BACKEND is {backend!r}, not django-redis.",
            'Use "BACKEND": "django_redis.cache.RedisCache" there.',
        )
    ]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("nowhere.allow", "No module named 'nowhere'"),
        ("allow", "allow doesn't look like a module path"),
        (f"{__name__}.absent", f'Module "{__name__}" does not define a "absent" attribute/class'),
        (f"{__name__}.not_callable", "it cannot be called"),
    ],
)
def test_e011_progress_permission(settings: Settings, path: str, problem: str) -> None:
    settings.TASKSETS = {"PROGRESS_PERMISSION": path}

    assert found(run()) == [
        (
            "tasksets.E011",
            f"TASKSETS['PROGRESS_PERMISSION'] is {path!r}, but: {problem}.",
            "Name a function (request, taskset) -> bool by its path.",
        )
    ]


@pytest.mark.parametrize("level", ["repeatable read", "SERIALIZABLE"])
def test_e012_mysql_isolation_level(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    use_vendor(monkeypatch, "mysql", {"isolation_level": level})

    assert found(run(databases=["default"])) == [
        (
            "tasksets.E012",
            f"The MySQL database 'default' is at isolation level {level.upper()}.",
            'Set "isolation_level": "read committed" in its OPTIONS; workers refuse what is above.',
        )
    ]


@pytest.mark.parametrize("options", [{}, {"isolation_level": "read committed"}])
def test_e012_silent_on_read_committed(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    use_vendor(monkeypatch, "mysql", options)

    assert run(databases=["default"]) == []


def test_e012_asks_a_server_that_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    use_vendor(
        monkeypatch,
        "mysql",
        {"isolation_level": None},
        ("transaction_isolation", "REPEATABLE-READ"),
    )

    assert run() == []
    assert [message.id for message in run(databases=["default"])] == ["tasksets.E012"]

    use_vendor(monkeypatch, "mysql", {"isolation_level": None}, ("tx_isolation", "READ-COMMITTED"))

    assert run(databases=["default"]) == []


def test_w003_mysql_that_lacks_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    use_vendor(monkeypatch, "mysql", {}, collation="latin1_swedish_ci")

    message = (
        "The MySQL database 'default' stores text as latin1_swedish_ci, which lacks characters."
    )
    hint = "Convert it and the tables of tasksets to utf8mb4; else names and errors are refused."
    assert found(run(databases=["default"])) == [("tasksets.W003", message, hint)]


@pytest.mark.skipif(connection.vendor != "mysql", reason="asks a server of that kind")
@pytest.mark.django_db
def test_w003_is_silent_on_the_real_one() -> None:
    assert checks.check_database_itself(databases=["default"]) == []


def test_w001_sqlite_without_wal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unblocked: None
) -> None:
    handler = use_databases(
        monkeypatch, default=sqlite(tmp_path / "db", transaction_mode="IMMEDIATE")
    )

    assert run() == []
    assert run(databases=["other"]) == []
    # What Django 5.2 hands over for `check --tag database` without `--database`.
    assert checks.check_database_itself(databases=None) == []
    assert found(run(databases=["default"])) == [
        (
            "tasksets.W001",
            "The SQLite database 'default' is not in WAL mode: readers and writers block.",
            'Add "init_command": "PRAGMA journal_mode=WAL;" to its OPTIONS.',
        )
    ]
    handler.close_all()


def test_w001_silent_when_the_file_is_in_wal_mode(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unblocked: None
) -> None:
    handler = use_databases(
        monkeypatch, default=sqlite(tmp_path / "db", transaction_mode="IMMEDIATE")
    )
    with handler["default"].cursor() as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")

    assert run(databases=["default"]) == []
    handler.close_all()


@pytest.mark.parametrize("options", [{}, {"transaction_mode": "DEFERRED"}])
def test_w002_sqlite_without_immediate(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    use_databases(monkeypatch, default=sqlite(**options))

    assert found(run()) == [
        (
            "tasksets.W002",
            "Transactions on the SQLite database 'default' do not begin with the write lock.",
            'Add "transaction_mode": "IMMEDIATE" to its OPTIONS; else writers fail, not wait.',
        )
    ]


def test_other_databases_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    use_vendor(monkeypatch, "postgresql", {})

    assert run(databases=["default"]) == []


def test_a_wrong_value_is_reported_once_and_the_default_judged(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_databases(monkeypatch, default=sqlite())
    settings.TASKSETS = {"DATABASE": 1, "REDIS": 2, "PROGRESS_PERMISSION": ""}

    assert [message.id for message in run()] == [
        "tasksets.E003",
        "tasksets.E003",
        "tasksets.E004",
        "tasksets.W002",
    ]


def test_the_models_are_not_imported() -> None:
    """`apps` imports the checks, and models cannot be imported before the apps are ready."""
    source = Path(str(sys.modules[checks.__name__].__file__)).read_text()

    assert "models" not in source
