"""What options of a call may be."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable
from typing import Any, Final

from django.utils import timezone

QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
LONGEST_SPAN: Final = 3_650 * 86_400
"""Ten years, in seconds."""


def is_number(value: object) -> bool:
    """A finite one that a float can hold; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_int(value: object, low: int, high: int) -> bool:
    """A whole number within these bounds; a bool is none."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_moment(value: object) -> bool:
    """A time that says which it is, in every time zone."""
    if not isinstance(value, datetime.datetime) or not timezone.is_aware(value):
        return False
    # Within a day of the first or the last year it would be outside of it somewhere.
    return datetime.MINYEAR < value.year < datetime.MAXYEAR


def is_queue(value: object) -> bool:
    """A queue's name."""
    return isinstance(value, str) and QUEUE_NAME.fullmatch(value) is not None


def is_limit(value: Any) -> bool:
    """Seconds that a task may take, or no limit."""
    return value is None or (is_number(value) and value > 0)


def is_span(value: Any) -> bool:
    """Seconds from now."""
    return is_number(value) and 0 <= value <= LONGEST_SPAN


CHECKS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "queue": (is_queue, "1 to 64 of the characters A-Z a-z 0-9 _ . -"),
    "priority": (
        lambda value: is_int(value, -100, 100),
        "a whole number from -100 to 100; higher is sooner",
    ),
    "countdown": (is_span, "seconds from now, not negative, at most ten years"),
    "eta": (is_moment, "a datetime with a time zone"),
    "expires": (
        lambda value: is_moment(value) or is_span(value),
        "seconds from now, not negative, at most ten years; or a datetime with a time zone",
    ),
    "max_retries": (
        lambda value: value is None or is_int(value, 0, 2**31 - 1),
        "a whole number, or None for no limit",
    ),
    "time_limit": (is_limit, "seconds, more than 0, or None"),
    "soft_time_limit": (is_limit, "seconds, more than 0, or None"),
    "weight": (lambda value: is_int(value, 1, 32_767), "a whole number from 1 to 32767"),
    "immutable": (lambda value: isinstance(value, bool), "True or False"),
}
"""For each option that has one: the check, and what it lets pass, in words."""
