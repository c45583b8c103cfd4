"""Stored values as text to read. Nothing is decoded: no class is looked for and no row is read."""

from __future__ import annotations

import json
import pprint
from collections.abc import Callable
from typing import Any, Final

from django.utils.translation import gettext as _

from ..options import stored_options
from ..redaction import HIDDEN, Places, redacted
from . import words

LONGEST: Final = 10_000
# What is longer was not written by us, or takes too long to lay out.
READABLE: Final = 1_000_000

Names = frozenset[str]


class _Tagged:
    """A value of a type that JSON does not know, as it would be written in Python, or nearly."""

    def __init__(self, name: str, value: Any) -> None:
        self._name = name
        self._value = value

    def __repr__(self) -> str:
        return f"{self._name}({self._value!r})"


class _Hidden:
    """In place of a value that is not shown."""

    def __repr__(self) -> str:
        return repr(HIDDEN)


def as_text(stored: str) -> str:
    """The value in the codec's text `stored`, laid out; cut where it is long."""
    return _as_text(stored, _plain)


def arguments_as_text(stored: str, task_name: str, *, given: int = 0) -> str:
    """The positional arguments of a call, before which so many others are `given`."""

    def plain(value: Any, names: Names) -> Any:
        return _arguments(value, task_name, given, names)

    return _as_text(stored, plain)


def links_as_text(stored: str) -> str:
    """The calls that are made when a subtask ends."""
    return _as_text(stored, _links)


def shortened(text: str) -> str:
    """The beginning of what is long."""
    if len(text) <= LONGEST:
        return text
    left = words.number(len(text) - LONGEST)
    return f"{text[:LONGEST]}\n… " + _("%(count)s characters more") % {"count": left}


def _as_text(stored: str, plain: Callable[[Any, Names], Any]) -> str:
    names = redacted()
    try:
        if len(stored) > READABLE:
            raise ValueError
        text = pprint.pformat(plain(json.loads(stored), names), width=100, sort_dicts=False)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        # Where it cannot be read, nobody can tell what in it is to be hidden.
        text = HIDDEN if names else str(stored)
    return shortened(text)


def _plain(value: Any, names: Names) -> Any:
    if isinstance(value, list):
        return [_plain(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    if "$" in value:
        return _tagged(value, names)
    return {
        key: _Hidden() if key.lower() in names else _plain(item, names)
        for key, item in value.items()
    }


def _tagged(value: dict[str, Any], names: Names) -> Any:
    tag, payload = value["$"], value["value"]
    if tag == "dict":
        return {
            _hashable(_plain(key, names)): (
                _Hidden() if str(key).lower() in names else _plain(item, names)
            )
            for key, item in payload
        }
    if tag == "model":
        return _Tagged(str(value["class"]), payload[0])
    if tag == "tuple":
        return tuple(_plain(payload, names))
    name = str(value.get("class", tag)).rpartition(":")[2]
    return _Tagged(name, _plain(payload, names))


def _hashable(value: Any) -> Any:
    return value if not isinstance(value, (list, dict)) else repr(value)


def _arguments(value: Any, task_name: str, given: int, names: Names) -> Any:
    if not isinstance(value, list):
        return _plain(value, names)
    places = Places(task_name, names)
    return [
        _Hidden() if place in places else _plain(item, names)
        for place, item in enumerate(value, start=given)
    ]


def _links(value: Any, names: Names) -> Any:
    return {kind: [_link(link, names) for link in links] for kind, links in value.items()}


def _link(link: dict[str, Any], names: Names) -> dict[str, Any]:
    """The call with its arguments, which are texts within the text."""
    plan = dict(link["plan"])
    given = 0 if stored_options(plan.get("options") or "").get("immutable") else 1
    args = _arguments(json.loads(link["args"]), link["task"], given, names)
    kwargs = _plain(json.loads(link["kwargs"]), names)
    if plan.get("links"):
        plan["links"] = _links(plan["links"], names)
    return {"task": link["task"], "args": args, "kwargs": kwargs, "plan": plan}
