"""Options by their names and values: Celery's others are accepted, misspelt ones are not."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from .calls import IGNORED_OPTIONS
from .checking import CHECKS, is_span
from .exceptions import InvalidOption, UnreadableValue


def refuse_unknown(given: Iterable[str], where: str, *, known: Collection[str] = ()) -> None:
    """Raise InvalidOption for the first option that is neither known nor one of Celery's."""
    for name in given:
        if name not in known and name not in IGNORED_OPTIONS:
            close = difflib.get_close_matches(name, known, n=1)
            advice = f"; did you mean {close[0]!r}?" if close else ""
            raise InvalidOption(f"{where}: unknown option {name!r}{advice}")


def refuse_impossible(options: Mapping[str, Any], where: str) -> None:
    """Raise InvalidOption for the first option of a task whose value cannot be."""
    for name, (is_possible, expected) in _TASK_OPTIONS.items():
        if name in options and not is_possible(options[name]):
            raise InvalidOption(f"{where}: {name}={options[name]!r} is not {expected}")


def stored_options(text: str) -> dict[str, Any]:
    """The options in a row's column, checked once more: anybody may have written the row.

    Raises UnreadableValue. Names that are not known are left alone: newer code may have some.
    """
    if not text:
        return {}
    try:
        options = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise UnreadableValue(f"The options are not JSON: {error}") from error
    if not isinstance(options, dict):
        raise UnreadableValue("The options are not a JSON object")
    for name, value in options.items():
        passes, expected = CHECKS.get(name, (None, ""))
        if passes is not None and not passes(value):
            raise UnreadableValue(f"The option {name}={value!r:.80} is not possible: {expected}")
    return options


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable()


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _are_exceptions(value: Any) -> bool:
    return all(
        isinstance(cls, type) and issubclass(cls, BaseException)
        for cls in (value if isinstance(value, tuple | list) else (value,))
    )


# Those that are not options of a call, too; packing knows about these.
_TASK_OPTIONS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "name": (_is_name, "1 to 255 printable characters"),
    "default_retry_delay": (is_span, "seconds, at most ten years"),
    "autoretry_for": (_are_exceptions, "a tuple of exception classes"),
    "retry_backoff": (lambda value: _is_bool(value) or is_span(value), "seconds or a bool"),
    "retry_backoff_max": (is_span, "seconds, at most ten years"),
    "retry_jitter": (_is_bool, "a bool"),
    "atomic": (_is_bool, "a bool"),
}
