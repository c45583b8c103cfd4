"""The one setting, `TASKSETS`: read each time, so that override_settings and tests just work."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from django.conf import settings as django_settings

from .calls import Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every key of `TASKSETS` with its type and default. `checks` reports wrong ones."""

    DATABASE: str = "default"
    MAX_VALUE_BYTES: int = 262_144
    MAX_TRACEBACK_BYTES: int = 16_384
    RETENTION: timedelta | None = timedelta(days=14)
    FAILED_RETENTION: timedelta | None = timedelta(days=30)
    OPEN_TIMEOUT: Seconds | None = 86_400

    DEFAULT_QUEUE: str = "default"
    MAX_RETRIES: int | None = 3
    RETRY_DELAY: Seconds = 180
    MAX_CRASHES: int = 3
    TIME_LIMIT: Seconds | None = None
    SOFT_TIME_LIMIT: Seconds | None = None
    UNKNOWN_TASK_WAIT: Seconds = 300
    ALWAYS_EAGER: bool = False
    EAGER_PROPAGATES: bool = False

    LEASE: Seconds = 60
    POLL_INTERVAL: Seconds = 0.5
    SWEEP_INTERVAL: Seconds = 60
    GRACE: Seconds = 25

    ENGINE: str = "database"
    ENGINE_OPTIONS: dict[str, Any] = field(default_factory=dict)
    WAKEUPS: str = "auto"
    REDIS: str | None = None
    REDIS_PREFIX: str = "tasksets:"

    REGISTER_ADMIN: bool = True
    PROGRESS_PERMISSION: str | None = None
    PROGRESS_LINK_MAX_AGE: Seconds = 86_400
    REDACT: tuple[str, ...] = ()


_NAMES = frozenset(item.name for item in fields(Settings))


def current() -> Settings:
    """The settings as they are now. Unknown keys are left to the system checks."""
    global _latest
    given = getattr(django_settings, "TASKSETS", None) or {}
    # They are asked for a lot, and seldom change; comparing costs a tenth of making them.
    before, made = _latest
    if given != before:
        made = Settings(**{key: value for key, value in given.items() if key in _NAMES})
        _latest = (dict(given), made)
    return made


_latest: tuple[dict[str, Any], Settings] = ({}, Settings())
