"""Stored values as text to read. Nothing is decoded: no class is looked for and no row is read."""

from __future__ import annotations

import json
import pprint
from typing import Any, Final

from django.utils.translation import gettext as _

from ..conf import current
from . import words

LONGEST: Final = 10_000
HIDDEN: Final = "••••••"


class _Tagged:
    """A value of a type that JSON does not know, as it would be written in Python, or nearly."""

    def __init__(self, name: str, value: Any) -> None:
        self._name = name
        self._value = value

    def __repr__(self) -> str:
        return f"{self._name}({self._value!r})"


def as_text(stored: str) -> str:
    """The value in the codec's text `stored`, laid out; cut where it is long."""
    try:
        value = _plain(json.loads(stored), {name.lower() for name in current().REDACT})
    except (ValueError, TypeError, LookupError, RecursionError):
        text = stored
    else:
        text = pprint.pformat(value, width=100, sort_dicts=False)
    if len(text) <= LONGEST:
        return text
    left = words.number(len(text) - LONGEST)
    return f"{text[:LONGEST]}\n… " + _("%(count)s characters more") % {"count": left}


def _plain(value: Any, redacted: set[str]) -> Any:
    if isinstance(value, list):
        return [_plain(item, redacted) for item in value]
    if not isinstance(value, dict):
        return value
    if "$" in value:
        return _tagged(value, redacted)
    return {
        key: HIDDEN if key.lower() in redacted else _plain(item, redacted)
        for key, item in value.items()
    }


def _tagged(value: dict[str, Any], redacted: set[str]) -> Any:
    tag, payload = value["$"], value["value"]
    if tag == "dict":
        return {
            _hashable(_plain(key, redacted)): (
                HIDDEN if str(key).lower() in redacted else _plain(item, redacted)
            )
            for key, item in payload
        }
    if tag == "model":
        return _Tagged(str(value["class"]), payload[0])
    if tag == "tuple":
        return tuple(_plain(payload, redacted))
    name = str(value.get("class", tag)).rpartition(":")[2]
    return _Tagged(name, _plain(payload, redacted))


def _hashable(value: Any) -> Any:
    return value if not isinstance(value, (list, dict)) else repr(value)
