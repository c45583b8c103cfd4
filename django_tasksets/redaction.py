"""What is not to be shown to anybody: the values of the names that REDACT lists."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from . import registry
from .conf import current
from .exceptions import UnknownTask

HIDDEN: Final = "••••••"
# Shorter texts, and smaller numbers, are in any sentence by chance.
SHORTEST: Final = 4
_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def redacted() -> frozenset[str]:
    """The names, in lower case."""
    return frozenset(name.lower() for name in current().REDACT)


class Places:
    """Which positional arguments of a task are hidden: those of the parameters that are listed.

    Of a task that is not known here, or whose parameters nobody can tell, all of them.
    """

    def __init__(self, task_name: str, names: Collection[str]) -> None:
        self._hidden: set[int] = set()
        self._from: int | None = None
        """From here on they all are."""
        if not names:
            return
        try:
            task: Any = registry.get(task_name)
            parameters = inspect.signature(getattr(task, "run", task)).parameters.values()
        except (UnknownTask, TypeError, ValueError):
            self._from = 0
            return
        for place, parameter in enumerate(parameters):
            if parameter.name.lower() not in names:
                continue
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                self._from = place
            elif parameter.kind in _POSITIONAL:
                self._hidden.add(place)

    def __contains__(self, place: object) -> bool:
        is_after = self._from is not None and isinstance(place, int) and place >= self._from
        return is_after or place in self._hidden


def secrets(task_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """The texts that are hidden among the arguments of a call, the longest first."""
    names = redacted()
    if not names:
        return []
    places = Places(task_name, names)
    values = [value for place, value in enumerate(args) if place in places]
    found = {text for value in values for text in _texts(value)}
    found.update(_named([args, kwargs], names))
    return sorted(found, key=len, reverse=True)


def mask(text: str, hidden: Iterable[str]) -> str:
    """The text without these, which come with the longest first."""
    for secret in hidden:
        text = text.replace(secret, HIDDEN)
    return text


def _named(value: Any, names: Collection[str]) -> Iterator[str]:
    """The texts under the listed names, however deep."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and key.lower() in names:
                yield from _texts(item)
            else:
                yield from _named(item, names)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _named(item, names)


def _texts(value: Any) -> Iterator[str]:
    """How a value may be found in a message."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        # Python writes no integers that are very long, in messages neither.
        text = "" if isinstance(value, int) and value.bit_length() > 1_000 else str(value)
        if len(text) >= SHORTEST:
            yield text
            # As it is written where it is shown as a value.
            yield repr(value)[1:-1] if isinstance(value, str) else text
