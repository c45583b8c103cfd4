"""System checks: what is wrong with `TASKSETS`, and with the database and the cache it names.

A worker that starts with a wrong setting fails late and far from its cause; these fail at once,
each with an id to look up or to silence, and with a hint that says what to write instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from importlib.util import find_spec
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db import connections
from django.utils.module_loading import import_string

from .conf import Settings

TAG: Final = "tasksets"

_DEFAULTS: Final = Settings()
_TYPES: Final[dict[str, Any]] = get_type_hints(Settings)
_TYPE_WORDS: Final[dict[Any, str]] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    timedelta: "a timedelta",
    dict: "a dict",
    tuple: "a list or tuple of strings",
    NoneType: "None",
}
# Numbers and spans are more than 0, but for those where 0 means "none" and one that needs more.
_LEAST: Final[dict[str, int]] = {
    "MAX_RETRIES": 0,
    "RETRY_DELAY": 0,
    "MAX_CRASHES": 0,
    "UNKNOWN_TASK_WAIT": 0,
    "GRACE": 0,
    "RETENTION": 0,
    "FAILED_RETENTION": 0,
    # Several heartbeats must fit into it, or a busy machine loses workers that are alive.
    "LEASE": 3,
}
_CHOICES: Final[dict[str, Sequence[str]]] = {
    "ENGINE": ("database", "celery", "django_tasks"),
    "WAKEUPS": ("auto", "off", "notify", "redis"),
}
# The width of the column that a queue's name is stored in.
_QUEUE_NAME_LENGTH: Final = 64
# That of our tables, or what they will have once they are made.
_COLLATION: Final = """
    SELECT coalesce((SELECT table_collation FROM information_schema.tables
        WHERE table_schema = database() AND table_name = 'tasksets_subtaskrecord'),
        @@collation_database)"""


@register(TAG)
def check_settings(**_: Any) -> list[CheckMessage]:
    """Every key of `TASKSETS` is known, of its type, and within its range."""
    given = getattr(django_settings, "TASKSETS", {})
    if not isinstance(given, Mapping):
        message = f"TASKSETS must be a dict, not {type(given).__name__}."
        return [_error("E001", message, 'Write TASKSETS = {}, or TASKSETS = {"MAX_RETRIES": 5}.')]
    return [error for key, value in given.items() if (error := _check_key(key, value))]


@register(TAG)
def check_database(**_: Any) -> list[CheckMessage]:
    """`DATABASE` is a database, and its OPTIONS let several workers write to it."""
    alias = _sound("DATABASE")
    if alias not in connections.settings:
        message = f"TASKSETS['DATABASE'] is {alias!r}, which is not in DATABASES."
        return [_error("E006", message, _did_you_mean(alias, connections.settings))]
    options = connections[alias].settings_dict["OPTIONS"]
    if connections[alias].vendor == "sqlite":
        return _check_sqlite_transactions(alias, options.get("transaction_mode"))
    if connections[alias].vendor == "mysql":
        # Django's default; None leaves it to the server, which the check below asks.
        return _check_isolation(alias, options.get("isolation_level", "read committed"))
    return []


@register(Tags.database)
def check_database_itself(
    *, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """What only the database can tell: the journal of SQLite, MySQL's level and characters.

    Under Django's `database` tag alone, since checking the settings must need no connection.
    """
    alias = _sound("DATABASE")
    if alias not in connections.settings or alias not in (databases or ()):
        return []
    options = connections[alias].settings_dict["OPTIONS"]
    if connections[alias].vendor == "sqlite":
        return _check_sqlite_journal(alias, options.get("init_command") or "")
    if connections[alias].vendor == "mysql":
        found = _check_characters(alias)
        if not options.get("isolation_level", "given"):
            # transaction_isolation in MySQL 8, tx_isolation in MariaDB before 11.1.
            level = _ask(alias, "SHOW VARIABLES LIKE 't%isolation'")
            found += _check_isolation(alias, level.replace("-", " "))
        return found
    return []


@register(TAG)
def check_redis(**_: Any) -> list[CheckMessage]:
    """Where Redis is asked for it can be had: through a cache of django-redis."""
    alias = _sound("REDIS")
    if alias is None:
        if _sound("WAKEUPS") != "redis":
            return []
        message = "TASKSETS['WAKEUPS'] is 'redis', but TASKSETS['REDIS'] names no cache."
        return [_error("E007", message, "Set REDIS to the alias of a django-redis cache.")]
    if find_spec("django_redis") is None:
        message = f"TASKSETS['REDIS'] is {alias!r}, but django-redis is not installed."
        return [_error("E008", message, 'Run: pip install "django-tasksets[redis]"')]
    if alias not in django_settings.CACHES:
        message = f"TASKSETS['REDIS'] is {alias!r}, which is not in CACHES."
        return [_error("E009", message, _did_you_mean(alias, django_settings.CACHES))]
    backend = django_settings.CACHES[alias].get("BACKEND", "")
    if not _is_django_redis(backend):
        message = f"TASKSETS['REDIS'] is {alias!r}, whose BACKEND is {backend!r}, not django-redis."
        return [_error("E010", message, 'Use "BACKEND": "django_redis.cache.RedisCache" there.')]
    return []


@register(TAG)
def check_progress_permission(**_: Any) -> list[CheckMessage]:
    """`PROGRESS_PERMISSION` can be imported and called."""
    path = _sound("PROGRESS_PERMISSION")
    if path is None:
        return []
    try:
        if callable(import_string(path)):
            return []
        problem = "it cannot be called"
    except ImportError as error:
        problem = str(error)
    message = f"TASKSETS['PROGRESS_PERMISSION'] is {path!r}, but: {problem}."
    return [_error("E011", message, "Name a function (request, taskset) -> bool by its path.")]


def _error(number: str, message: str, hint: str) -> CheckMessage:
    return Error(message, hint=hint, id=f"{TAG}.{number}")


def _did_you_mean(word: object, known: Iterable[str]) -> str:
    names = {name.lower(): name for name in known}
    if close := get_close_matches(str(word).lower(), names, n=1):
        return f"Did you mean {names[close[0]]!r}?"
    return f"There are: {', '.join(sorted(names.values()))}."


def _sound(name: str) -> Any:
    """The value of one setting, or its default where the given one is reported as wrong."""
    given = getattr(django_settings, "TASKSETS", {})
    if isinstance(given, Mapping) and name in given and _check_key(name, given[name]) is None:
        return given[name]
    return getattr(_DEFAULTS, name)


def _check_key(key: object, value: object) -> CheckMessage | None:
    if not isinstance(key, str) or key not in _TYPES:
        message = f"TASKSETS has an unknown key, {key!r}."
        return _error("E002", message, _did_you_mean(key, _TYPES))
    default = f"Leave it out for its default, {getattr(_DEFAULTS, key)!r}."
    if not _fits(value, _TYPES[key]):
        # The type and not the value, which may be an address with a password in it.
        message = f"TASKSETS[{key!r}] must be {_in_words(_TYPES[key])}, not {type(value).__name__}."
        return _error("E003", message, default)
    if rule := _broken_rule(key, value):
        return _error("E004", f"TASKSETS[{key!r}] must be {rule}, not {value!r}.", default)
    if key in _CHOICES and value not in _CHOICES[key]:
        message = f"TASKSETS[{key!r}] is {value!r}, which means nothing."
        return _error("E005", message, _did_you_mean(value, _CHOICES[key]))
    return None


def _fits(value: object, kind: Any) -> bool:
    """Whether `value` is of that type: True is no number, and a list is as good as a tuple."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_fits(value, member) for member in inner)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and all(_fits(item, inner[0]) for item in value)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, origin or kind)


def _in_words(kind: Any) -> str:
    members = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    return " or ".join(_TYPE_WORDS[get_origin(member) or member] for member in members)


def _broken_rule(key: str, value: object) -> str:
    """The rule that a value of the right type breaks, in words; empty if none."""
    if isinstance(value, str) and not value:
        return "a string that is not empty"
    if isinstance(value, str) and key == "DEFAULT_QUEUE" and len(value) > _QUEUE_NAME_LENGTH:
        return f"at most {_QUEUE_NAME_LENGTH} characters long"
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return ""
    if not -math.inf < number < math.inf:
        return "finite"
    if key in _LEAST:
        return "" if number >= _LEAST[key] else f"at least {_LEAST[key]}"
    return "" if number > 0 else "more than 0"


def _check_sqlite_transactions(alias: str, mode: str | None) -> list[CheckMessage]:
    if mode and mode.upper() in {"IMMEDIATE", "EXCLUSIVE"}:
        return []
    message = f"Transactions on the SQLite database {alias!r} do not begin with the write lock."
    hint = 'Add "transaction_mode": "IMMEDIATE" to its OPTIONS; else writers fail, not wait.'
    return [CheckWarning(message, hint=hint, id=f"{TAG}.W002")]


def _check_sqlite_journal(alias: str, init_command: str) -> list[CheckMessage]:
    # A database in memory has no file, and a journal mode of its own.
    wanted = "journal_mode=wal" in init_command.lower().replace(" ", "")
    if wanted or _ask(alias, "PRAGMA journal_mode") in {"wal", "memory"}:
        return []
    message = f"The SQLite database {alias!r} is not in WAL mode: readers and writers block."
    hint = 'Add "init_command": "PRAGMA journal_mode=WAL;" to its OPTIONS.'
    return [CheckWarning(message, hint=hint, id=f"{TAG}.W001")]


def _check_isolation(alias: str, level: str | None) -> list[CheckMessage]:
    if not level or level.lower() not in {"repeatable read", "serializable"}:
        return []
    message = f"The MySQL database {alias!r} is at isolation level {level.upper()}."
    hint = 'Set "isolation_level": "read committed" in its OPTIONS; workers refuse what is above.'
    return [_error("E012", message, hint)]


def _check_characters(alias: str) -> list[CheckMessage]:
    collation = _ask(alias, _COLLATION)
    if collation.startswith("utf8mb4"):
        return []
    message = f"The MySQL database {alias!r} stores text as {collation}, which lacks characters."
    hint = "Convert it and the tables of tasksets to utf8mb4; else names and errors are refused."
    return [CheckWarning(message, hint=hint, id=f"{TAG}.W003")]


def _ask(alias: str, statement: str) -> str:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)
        return str(cursor.fetchone()[-1])


def _is_django_redis(backend: str) -> bool:
    try:
        classes = import_string(backend).__mro__
    except ImportError:
        return False
    return any(item.__module__.partition(".")[0] == "django_redis" for item in classes)
