"""The types that JSON does not know: how each becomes JSON, and how it comes back exactly.

Nothing is pickled, no module is imported to read a value, and no `__init__` of a user is called.
(ZoneInfo itself may open its data package, `tzdata`.)
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import PurePath
from types import MemberDescriptorType, NoneType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.apps import apps
from django.db import models
from django.utils.connection import ConnectionDoesNotExist
from django.utils.functional import LazyObject, Promise
from django.utils.safestring import SafeString

from .exceptions import NotStorable, UnreadableValue


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """How the values of one type are stored: under `tag`, as what `to_json` makes of them.

    `to_json` returns something that can itself be encoded, or raises NotStorable without a path;
    `from_json` gets it back, decoded. With a `name_of`, the name that it gives is stored beside
    the value, and comes to `from_json` as the first argument. A leaf holds no values of the
    user's, so that what it is made of adds nothing to the depth.
    """

    tag: str
    to_json: Callable[[Any], Any]
    from_json: Callable[..., Any]
    name_of: Callable[[Any], str] | None = None
    is_leaf: bool = False


# What JSON knows, with exceptions

MAX_DIGITS = 4300
"""Python reads no longer integers, unless it is told to."""


def _int_fault(value: int) -> str | None:
    try:
        digits = len(str(abs(value)))
    except ValueError:  # more than Python is set to write
        digits = MAX_DIGITS + 1
    return f"is an integer of more than {MAX_DIGITS} digits" if digits > MAX_DIGITS else None


def _float_fault(value: float) -> str | None:
    return None if math.isfinite(value) else f"is {value}, which JSON does not have"


def _str_fault(value: str) -> str | None:
    if "\0" in value:
        return "contains a NUL character, which not every database can store"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "contains a lone surrogate, which not every database can store"
    return None


CONSTANTS = frozenset({NoneType, bool})
FAULTS: dict[type, Callable[[Any], str | None]] = {
    int: _int_fault,
    float: _float_fault,
    str: _str_fault,
}
"""Types that are JSON as they stand, and what may be wrong with a value of each."""


# Dates and times


def _moment_to_json(value: datetime | time) -> Any:
    zone = _zone_to_json(value.tzinfo)
    text = (value if zone is None else value.replace(tzinfo=None)).isoformat()
    return text if zone is None and not value.fold else [text, zone, value.fold]


def _zone_to_json(zone: tzinfo | None) -> Any:
    """None where isoformat() says it all, the key of a ZoneInfo, a timezone's offset and name."""
    if zone is None or zone is UTC:
        return None
    if type(zone) is timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        if name != timezone(offset).tzname(None):
            return [offset, name]
        # fromisoformat() takes +00:00:00.000001 for UTC.
        return [offset] if offset.microseconds else None
    if type(zone) is ZoneInfo and zone.key:
        return zone.key
    raise NotStorable(f"has a {class_name(type(zone))} as tzinfo; make it a zoneinfo.ZoneInfo")


def _moment_from_json(cls: Any) -> Callable[[Any], Any]:
    def from_json(payload: Any) -> Any:
        if isinstance(payload, str):
            return cls.fromisoformat(payload)
        text, zone, fold = payload
        value = cls.fromisoformat(text).replace(fold=fold)
        if zone is None:
            return value
        return value.replace(tzinfo=ZoneInfo(zone) if isinstance(zone, str) else timezone(*zone))

    return from_json


def _timedelta_to_json(value: timedelta) -> int:
    return value // timedelta(microseconds=1)


def _timedelta_from_json(payload: Any) -> timedelta:
    return timedelta(microseconds=payload)


# Numbers, text and bytes


def _decimal_to_json(value: Decimal) -> str:
    if not value.is_finite():
        raise NotStorable("is a Decimal that is not finite; store None or a string")
    return str(value)


def _safe_to_json(value: SafeString) -> str:
    return str.__str__(value)  # str(value) would be the same SafeString again


def _bytes_to_json(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _bytes_from_json(payload: Any) -> bytes:
    return base64.b64decode(payload, validate=True)


# Classes by name


def class_name(cls: type) -> str:
    """The class as messages show it."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    return name.removeprefix("builtins.")


def _reference(value: object) -> str:
    """`module:qualname` of the value's class, which another process will find by that name."""
    cls = type(value)
    name = f"{cls.__module__}:{cls.__qualname__}"
    if _find_class(name) is not cls:
        raise NotStorable(
            f"is a {class_name(cls)}, and no worker could find that class by its name; "
            "define it at the top level of a module"
        )
    return name


def _find_class(name: str) -> type | None:
    """The class of that name, if it is imported already.

    Names are looked up in the dictionaries themselves: getattr() could run a `__getattr__`, and
    with it an import, or a property.
    """
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    if module == "__main__":  # another one in every process
        return None
    for part in qualname.split("."):
        try:
            found = object.__getattribute__(found, "__dict__")[part]
        except (AttributeError, KeyError):
            return None
        if not issubclass(type(found), type):
            return None
    cls: type = found
    return cls if (cls.__module__, cls.__qualname__) == (module, qualname) else None


def _known_class(name: str, kind: str, is_kind: Callable[[type], bool]) -> Any:
    cls = _find_class(name)
    if cls is None:
        raise UnreadableValue(f"No class {name!r} is imported in this process")
    if not is_kind(cls):
        raise UnreadableValue(f"{name!r} is not {kind}")
    return cls


def _static(cls: type, name: str) -> Any:
    """What the class or one of its bases has under that name, and None of what that may run."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


# Enums: by the member's name, flags by their bits


def _is_enum(cls: type) -> bool:
    return issubclass(cls, enum.Enum)


def _enum_to_json(value: enum.Enum) -> Any:
    cls = type(value)
    if isinstance(value, enum.Flag):
        return value._value_
    if cls.__members__.get(value._name_) is not value:
        raise NotStorable(f"is not a member of {class_name(cls)} that can be found by its name")
    return value._name_


def _enum_from_json(name: str, payload: Any) -> Any:
    cls = _known_class(name, "an Enum", _is_enum)
    return cls(payload) if issubclass(cls, enum.Flag) else cls.__members__[payload]


# Dataclasses: all that the instance holds


def _is_dataclass(cls: type) -> bool:
    return isinstance(_static(cls, "__dataclass_fields__"), dict)


def _dataclass_to_json(value: Any) -> dict[str, Any]:
    """Fields and all other attributes, so that what `__post_init__` made of them comes back too."""
    cls = type(value)
    try:
        object.__new__(cls)
    except TypeError as error:
        raise NotStorable(
            f"is a {class_name(cls)}, which holds more than its fields: {error}"
        ) from None
    state: Any = object.__getstate__(value)
    own, slots = state if isinstance(state, tuple) else (state, None)
    attributes = {**(own or {}), **(slots or {})}
    attributes.pop("__orig_class__", None)  # set by typing on Box[int](...), no part of the value
    for field in dataclasses.fields(cls):
        # A default that __init__ does not set stays on the class.
        if field.name not in attributes and field.default is dataclasses.MISSING:
            raise NotStorable(f"has no value for its field {field.name!r}")
    return attributes


def _dataclass_from_json(name: str, payload: Any) -> Any:
    """The instance as it was; a field that the class has got since then has its default."""
    cls = _known_class(name, "a dataclass", _is_dataclass)
    value = object.__new__(cls)
    missing = [field for field in dataclasses.fields(cls) if field.name not in payload]
    for attribute, item in {**payload, **{f.name: _default(f, name) for f in missing}}.items():
        if type(_static(cls, attribute)) is MemberDescriptorType:  # a slot
            object.__setattr__(value, attribute, item)
        else:
            object.__getattribute__(value, "__dict__")[attribute] = item
    return value


def _default(field: dataclasses.Field[Any], name: str) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise UnreadableValue(f"{name!r} has got a field {field.name!r} without a default since then")


# Named tuples


def _is_namedtuple(cls: type) -> bool:
    return issubclass(cls, tuple) and isinstance(_static(cls, "_fields"), tuple)


def _namedtuple_to_json(value: Any) -> list[Any]:
    items = list(tuple.__iter__(value))
    if object.__getstate__(value) or len(items) != len(_static(type(value), "_fields")):
        raise NotStorable(f"is a {class_name(type(value))} that holds more or less than its fields")
    return items


def _namedtuple_from_json(name: str, payload: Any) -> Any:
    """The tuple as it was; fields that the class has got since then have their defaults."""
    cls = _known_class(name, "a named tuple", _is_namedtuple)
    defaults = _static(cls, "_field_defaults") or {}
    added = [defaults[field] for field in _static(cls, "_fields")[len(payload) :]]
    if len(payload) > len(_static(cls, "_fields")):
        raise UnreadableValue(f"{name!r} has fewer fields than it had then")
    return tuple.__new__(cls, [*payload, *added])


# Model instances: by reference


def _model_label(value: models.Model) -> str:
    return value._meta.label_lower


def _model_to_json(value: models.Model) -> list[Any]:
    if value.pk is None or value._state.adding:
        raise NotStorable(f"is an unsaved {value._meta.label}; save it first")
    if value._meta.apps is not apps:
        raise NotStorable(f"is a {value._meta.label} of a migration; pass its primary key")
    return [value.pk, value._state.db]


def _model_from_json(label: str, payload: Any) -> models.Model:
    """The row as it is now; raises the model's DoesNotExist when it is gone."""
    pk, alias = payload
    manager: models.Manager[models.Model] = apps.get_model(label)._base_manager
    try:
        return manager.using(alias).get(pk=pk)
    except ConnectionDoesNotExist as error:
        raise UnreadableValue(f"A {label} lies in a database that is not known here") from error


# Which type has which form

PAIRS = Form("dict", list, dict)
"""Dicts that a JSON object cannot hold. The codec itself makes the pairs."""

FORMS: dict[type, Form] = {
    datetime: Form("datetime", _moment_to_json, _moment_from_json(datetime), is_leaf=True),
    date: Form("date", date.isoformat, date.fromisoformat),
    time: Form("time", _moment_to_json, _moment_from_json(time), is_leaf=True),
    timedelta: Form("timedelta", _timedelta_to_json, _timedelta_from_json),
    Decimal: Form("Decimal", _decimal_to_json, Decimal),
    UUID: Form("UUID", str, UUID),
    SafeString: Form("SafeString", _safe_to_json, SafeString),
    bytes: Form("bytes", _bytes_to_json, _bytes_from_json),
    tuple: Form("tuple", list, tuple),
    set: Form("set", list, set),
    frozenset: Form("frozenset", list, frozenset),
}

_MODEL = Form("model", _model_to_json, _model_from_json, _model_label, is_leaf=True)
_ENUM = Form("enum", _enum_to_json, _enum_from_json, _reference)
_NAMEDTUPLE = Form("namedtuple", _namedtuple_to_json, _namedtuple_from_json, _reference)
DATACLASS = Form("dataclass", _dataclass_to_json, _dataclass_from_json, _reference)
KINDS = (PAIRS, _MODEL, _ENUM, _NAMEDTUPLE, DATACLASS)


def form_of(value: object) -> Form:
    """The form of a value whose exact type is in no table; raises NotStorable, with advice."""
    cls = type(value)
    if issubclass(cls, LazyObject) and issubclass(value.__class__, models.Model):
        return _MODEL  # request.user: what it stands for is read anew in any case
    if _is_enum(cls):
        return _ENUM
    if issubclass(cls, models.Model):
        return _MODEL
    if _is_namedtuple(cls):
        return _NAMEDTUPLE
    if _is_dataclass(cls):
        return DATACLASS
    raise NotStorable(f"{class_name(cls)} is not a type that can be stored; {_advice(cls)}")


_ADVICE: tuple[tuple[Any, str], ...] = (
    (Promise, "pass str(value), or translate it in the task"),
    (LazyObject, "pass what it stands for"),
    (datetime, "make it a plain datetime.datetime"),
    (date, "make it a plain datetime.date"),
    (str, "make it a plain str"),
    (int, "make it a plain int"),
    (float, "make it a plain float"),
    (Mapping, "pass dict(value)"),
    (bytearray, "pass bytes(value)"),
    (memoryview, "pass bytes(value)"),
    (models.QuerySet, "pass a list of primary keys"),
    (PurePath, "pass str(value)"),
    (BaseException, "pass str(value)"),
    (Iterable, "pass list(value)"),
    (Callable, "pass its name"),
)


def _advice(cls: type) -> str:
    return next(
        (advice for known, advice in _ADVICE if issubclass(cls, known)),
        "pass what the task needs of it, such as an id, as plain values",
    )
