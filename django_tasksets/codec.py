"""Values as text: JSON, with tags for what JSON does not know, and an exact way back.

A tagged value is an object with the key "$": `{"$":"UUID","value":"..."}`, and with "class" where
the tag alone does not say which. A dict that has that key itself, or a key that is no string, is
stored as a list of pairs under a tag, so that nothing in user data is ever taken for a tag.

The text is ASCII whatever it holds: the same on every database and in every character set.
Values come back equal and of the same types: dataclasses with every attribute that they had, model
instances as what their row says by then. One object in two places comes back as two.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from . import conf
from .codec_types import (
    CONSTANTS,
    DATACLASS,
    FAULTS,
    FORMS,
    KINDS,
    MAX_DIGITS,
    PAIRS,
    Form,
    class_name,
    form_of,
)
from .exceptions import InvalidOption, NotStorable, UnreadableValue

MAX_LEVELS: Final = 32
"""How deep values nest at most: each list, dict, tuple, set and dataclass is one level."""

_KEY = "$"
_MARK = '"$"'
# Up to so many characters or arguments, nothing is too large: it need not be measured.
_SHORT = 256
_FEW = 16
_SCALARS = CONSTANTS.union(FAULTS)
# How a NUL and the halves of a surrogate pair look in JSON text, besides much that is harmless.
_SUSPECT = re.compile(r"\\u(?:0000|d[89a-f])")

_to_text = json.JSONEncoder(allow_nan=False, check_circular=False, separators=(",", ":")).encode
# The same for the commonest values: an encoder builds another one for each text that it makes.
_TEXTS: Final[dict[type, Callable[[Any], str]]] = {
    int: int.__repr__,
    str: json.encoder.encode_basestring_ascii,
    bool: {False: "false", True: "true"}.__getitem__,
    type(None): {None: "null"}.__getitem__,
}


# Encoding


def encode(value: Any, *, path: str = "value") -> str:
    """The value as compact JSON text, from which decode() makes it again.

    Raises NotStorable, which names the part that is refused by its path (`args[1]["when"]`): types
    that are not known, NaN and infinities, NUL characters and lone surrogates, integers of more
    than 4300 digits, what is nested deeper than 32 levels or contains itself, and values whose
    text is longer than MAX_VALUE_BYTES (or 256, if that is more).
    """
    text = _flat_text(value, _TEXTS.get(type(value), _to_text)) if type(value) in _SCALARS else None
    return text or _walked_text(value, path, level=1)


def encode_args(args: Sequence[Any]) -> str:
    """The arguments as the text of a JSON list. See encode(); the list itself is not a level."""
    items = list(args)
    is_flat = len(items) <= _FEW and _SCALARS.issuperset(map(type, items))
    text = _flat_text(items, _list_text) if is_flat else None
    return text or _walked_text(items, "args", level=0)


def encode_kwargs(kwargs: Mapping[str, Any]) -> str:
    """The keyword arguments as the text of a JSON object. See encode_args()."""
    if not kwargs:
        return "{}"
    items = dict(kwargs)
    if not {str}.issuperset(map(type, items)):
        raise NotStorable("the names of keyword arguments are plain strings", path="kwargs")
    is_flat = len(items) <= _FEW and _SCALARS.issuperset(map(type, items.values()))
    text = _flat_text(items, _to_text) if is_flat and _KEY not in items else None
    return text or _walked_text(items, "kwargs", level=0)


def handle(tag: str, payload: object) -> str:
    """The text of an instance of a registered type that is stored as a string, such as its id.

    For those who know the id and must not import the type.
    """
    return f'{{"$":{_to_text(tag)},"value":{_to_text(str(payload))}}}'


def join_list(texts: Iterable[str]) -> str:
    """The text of a list, from the texts of its elements. Its length is not limited."""
    return f"[{','.join(texts)}]"


def prepend(text: str, args_text: str) -> str:
    """The text of a list, from that of its first element and that of the list of the others."""
    return f"[{text}]" if args_text == "[]" else f"[{text},{args_text[1:]}"


def _list_text(items: list[Any]) -> str:
    try:
        return f"[{','.join([_TEXTS[type(item)](item) for item in items])}]"
    except KeyError:
        return _to_text(items)


def _flat_text(value: Any, to_text: Callable[[Any], str]) -> str | None:
    """The text of what is JSON as it stands; None if that needs a closer look."""
    try:
        text = to_text(value)
    except ValueError:  # NaN, an infinity, or more digits than Python is set to write
        return None
    fits = len(text) <= _SHORT or len(text) <= _limit()
    return text if fits and not _is_suspect(text) else None


def _is_suspect(text: str) -> bool:
    """It may hold what is refused. Looking at the text is cheaper than at each value."""
    if "\\" in text and _SUSPECT.search(text):
        return True
    return len(text) > MAX_DIGITS and not 0 < sys.get_int_max_str_digits() <= MAX_DIGITS


def _limit() -> int:
    return max(_SHORT, conf.current().MAX_VALUE_BYTES)


def _walked_text(value: Any, path: str, level: int) -> str:
    root = (None, None, _Shown(path), level)
    limit = _limit()
    try:
        text = _to_text(_Walk(root, limit, trusted=_SCALARS).pack(value, root))
        suspect = _is_suspect(text)
    except ValueError:
        suspect = True
    if suspect:  # Once more, scalar by scalar: one of them is refused, or all are harmless.
        text = _to_text(_Walk(root, limit, trusted=CONSTANTS).pack(value, root))
    if len(text) > limit:
        raise NotStorable(_too_large(limit), path=path)
    return text


def _too_large(limit: int) -> str:
    return f"takes more than {limit} bytes as JSON (MAX_VALUE_BYTES); store it elsewhere"


# The walk over a value


class _Shown(str):
    """A step of a path just as it is shown, where a str is a key."""

    __slots__ = ()


_Place: TypeAlias = tuple[Any, object, object, int]
"""Where a walk has come to: the place above, the container there, the step down, the level here."""


class _Walk:
    """One walk over a value: out comes what the C encoder takes.

    Scalars of `trusted` types are passed over in bulk, and containers that hold nothing else are
    not even copied.
    """

    __slots__ = ("left", "limit", "root", "trusted")

    def __init__(self, root: _Place, limit: int, *, trusted: frozenset[type]) -> None:
        self.root = root
        self.limit = limit
        self.trusted = trusted
        # What is left of the limit if every element and character takes one byte. Counted on the
        # way, because one list in many places is little memory and may be endless text.
        self.left = limit

    def pack(self, value: Any, place: _Place) -> Any:
        kind = type(value)
        if kind is dict:
            return self.mapping(value, value, place)
        if kind is list:
            return self.items(value, value, place)
        if kind not in _SCALARS:
            return self.tagged(value, place)
        fault = FAULTS[kind](value) if kind in FAULTS else None
        if fault:
            raise _refusal(fault, place)
        return value

    def tagged(self, value: Any, place: _Place) -> dict[str, Any]:
        try:
            form = _forms.get(type(value)) or _inherited_form(type(value)) or form_of(value)
            payload = form.to_json(value)
            packed = {_KEY: form.tag}
            if form.name_of is not None:
                packed["class"] = form.name_of(value)
        except NotStorable as error:
            raise _refusal(str(error), place) from None
        packed["value"] = self.payload(payload, form, value, place)
        return packed

    def payload(self, payload: Any, form: Form, owner: object, place: _Place) -> Any:
        """What a form made of its owner. A list or dict stands for the owner: it adds no level."""
        if form.is_leaf:
            place = (place, owner, _Shown(""), 1)
        kind = type(payload)
        if kind is list:
            return self.items(payload, owner, place)
        if kind is dict:
            return self.mapping(payload, owner, place, attributes=form is DATACLASS)
        self.weigh((payload,))
        if kind in _SCALARS:
            return self.pack(payload, place)
        return self.pack(payload, (place, owner, _Shown(""), self.enter(owner, place)))

    def items(self, items: list[Any], owner: object, place: _Place) -> list[Any]:
        level, trusted = self.enter(owner, place), self.trusted
        if self.weigh(items) <= trusted:
            return items
        return [
            item if type(item) in trusted else self.pack(item, (place, owner, index, level))
            for index, item in enumerate(items)
        ]

    def mapping(
        self, mapping: dict[Any, Any], owner: object, place: _Place, *, attributes: bool = False
    ) -> dict[str, Any]:
        level, trusted = self.enter(owner, place), self.trusted
        types = self.weigh(mapping)
        if not types <= {str} or _KEY in mapping:
            return self.pairs(mapping, owner, place)
        if not types <= trusted:
            self.keys(mapping, owner, place)
        if self.weigh(mapping.values()) <= trusted:
            return mapping
        return {
            key: item
            if type(item) in trusted
            else self.pack(item, (place, owner, _Shown(f".{key}") if attributes else key, level))
            for key, item in mapping.items()
        }

    def pairs(self, mapping: dict[Any, Any], owner: object, place: _Place) -> dict[str, Any]:
        level = self.enter(owner, place)
        self.weigh(mapping.values())
        pairs = []
        keys = self.keys(mapping, owner, place)
        for index, (packed, (key, item)) in enumerate(zip(keys, mapping.items(), strict=True)):
            step = key if type(key) in _SCALARS else _Shown(f".values()[{index}]")
            pairs.append([packed, self.pack(item, (place, owner, step, level))])
        return {_KEY: PAIRS.tag, "value": pairs}

    def keys(self, mapping: dict[Any, Any], owner: object, place: _Place) -> list[Any]:
        level = self.enter(owner, place)
        return [
            self.pack(key, (place, owner, _Shown(f".keys()[{index}]"), level))
            for index, key in enumerate(mapping)
        ]

    def enter(self, owner: object, place: _Place) -> int:
        """The level inside a container. What contains itself is found out when it is too deep."""
        level = place[3]
        if level <= MAX_LEVELS:
            return level + 1
        seen: set[int] = set()
        for around, container in [*[*_containers(place)][::-1], (place, owner)]:
            if id(container) in seen:
                raise _refusal("contains itself", around)
            seen.add(id(container))
        raise _refusal(f"is nested deeper than {MAX_LEVELS} levels", place)

    def weigh(self, items: Collection[Any]) -> set[type]:
        """Count what the items take at the very least. Returns the types among them."""
        types = set(map(type, items))
        self.left -= len(items)
        if str in types:
            self.left -= sum([len(item) for item in items if type(item) is str])
        if self.left < 0:
            raise _refusal(_too_large(self.limit), self.root)
        return types


def _places(place: _Place | None) -> Iterator[_Place]:
    """From this place to the outermost."""
    while place is not None:
        yield place
        place = place[0]


def _containers(place: _Place) -> Iterator[tuple[_Place, object]]:
    """The containers around this place, each with its own place."""
    for above, container, _, _ in _places(place):
        if above is not None:
            yield above, container


def _refusal(message: str, place: _Place) -> NotStorable:
    steps = [_spelled(step) for _, _, step, _ in _places(place)]
    return NotStorable(message, path="".join(steps[::-1]))


def _spelled(step: object) -> str:
    if isinstance(step, _Shown):
        return step
    if isinstance(step, str):
        return f"[{json.dumps(step if len(step) <= 60 else f'{step[:60]}...')}]"
    return f"[{step!r}]"


# Decoding


def decode(text: str) -> Any:
    """The value whose text this is.

    Nothing is imported for it: classes are those registered, and those in modules that are
    imported already. A model instance is read from its row, by a query of its own; if the row is
    gone, the model's DoesNotExist is raised. What else cannot be read raises UnreadableValue.
    """
    if text == "{}":
        return {}
    try:
        if _MARK in text:
            return _from_text(text)
        # What we have written has no space at its ends, which json.loads() looks for.
        value, end = (None, -1) if text[:1].isspace() else _scan(text)
        return value if end == len(text) else json.loads(text)
    except UnreadableValue:
        raise
    except (ValueError, RecursionError) as error:
        raise UnreadableValue(f"What is stored is not the text of a value: {error}") from error


def _revived(found: dict[str, Any]) -> Any:
    """What a JSON object stands for. Inner ones come first, so that payloads are decoded."""
    if _KEY not in found:
        return found
    tag = found[_KEY]
    form = _by_tag.get(tag) if isinstance(tag, str) else None
    if form is None:
        raise UnreadableValue(f"No type is registered in this process for the tag {tag!r:.80}")
    try:
        if form.name_of is None:
            return form.from_json(found["value"])
        return form.from_json(found["class"], found["value"])
    except UnreadableValue:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UnreadableValue(f"What is stored as {tag} cannot be read: {reason}") from error


_scan = json.JSONDecoder().raw_decode
_from_text = json.JSONDecoder(object_hook=_revived).decode


# Types of the layers above

_forms: dict[type, Form] = dict(FORMS)
_inherited: dict[type, Form] = {}
_by_tag: dict[str, Form] = {form.tag: form for form in (*FORMS.values(), *KINDS)}
_owners: dict[str, str] = dict.fromkeys(_by_tag, "django_tasksets.codec")


def register_type(
    cls: type,
    tag: str,
    to_json: Callable[[Any], Any],
    from_json: Callable[[Any], Any],
    *,
    subclasses: bool = False,
) -> None:
    """Store the instances of `cls` under `tag`, as what `to_json` returns, encoded in turn.

    `from_json` gets that, decoded, and returns the instance. With `subclasses`, the instances of
    subclasses are stored too, and come back as what `from_json` returns. A class that is made
    again (a reload) replaces itself; a tag that another class has raises InvalidOption.
    """
    name = class_name(cls)
    is_ours = cls in FORMS or cls in _SCALARS or cls in (list, dict)
    if is_ours or _owners.get(tag, name) != name:
        raise InvalidOption(f"{name} cannot be stored as {tag!r}: one of them is taken already")
    form = Form(tag, to_json, from_json)
    _owners[tag] = name
    _by_tag[tag] = form
    _forms[cls] = form
    if subclasses:
        _inherited[cls] = form


def _inherited_form(cls: type) -> Form | None:
    return next((_inherited[base] for base in cls.__mro__ if base in _inherited), None)
