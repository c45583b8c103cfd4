"""The codec: what comes back exactly, what is refused and where it says so, what is never run."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import functools
import importlib.abc
import itertools
import json
import math
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, Generic, NamedTuple, TypedDict, TypeVar
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Group, User
from django.db import models
from django.test import override_settings
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from django_tasksets import codec, codec_types
from django_tasksets.codec import decode, encode, encode_args, encode_kwargs
from django_tasksets.exceptions import InvalidOption, NotStorable, UnreadableValue
from django_tasksets.models import TaskSetRecord


class Color(enum.Enum):
    RED = 1
    CRIMSON = RED
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Size(models.TextChoices):
    SMALL = "S", "small"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: Any
    y: Any = 0


class Pixel(collections.namedtuple("_Pixel", "x y")):
    """A named tuple in the older way, and without __slots__."""


@dataclasses.dataclass
class Album:
    title: Any
    photos: list[Any] = dataclasses.field(default_factory=list)
    size: Any = dataclasses.field(init=False, default=0)

    class Cover(enum.Enum):
        HARD = 1

    def __post_init__(self) -> None:
        self.size += len(self.photos)
        self.opened = 1

    @functools.cached_property
    def caption(self) -> str:
        return f"{self.title}!"


@dataclasses.dataclass(frozen=True, slots=True)
class Crop:
    left: Any
    right: Any = None


@dataclasses.dataclass
class Watched:
    calls: ClassVar[list[str]] = []
    x: int

    def __new__(cls, *args: Any) -> Watched:
        cls.calls.append("new")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self.calls.append("post_init")

    def __setattr__(self, name: str, value: Any) -> None:
        self.calls.append("setattr")
        super().__setattr__(name, value)

    def __getattribute__(self, name: str) -> Any:
        type(self).calls.append("getattribute")
        return super().__getattribute__(name)

    def __setstate__(self, state: Any) -> None:
        self.calls.append("setstate")


@dataclasses.dataclass
class Bag(list[Any]):
    label: str = ""


T = TypeVar("T")


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class Handle:
    def __init__(self, given: str) -> None:
        self.id = given

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


class SpecialHandle(Handle):
    pass


class Call(dict[str, Any]):
    pass


class Chain:
    """Stored as the next of an endless row of its kind."""


class Plain:
    pass


class Movie(TypedDict):
    name: str


@pytest.fixture(autouse=True)
def _types_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_forms", "_inherited", "_by_tag", "_owners"):
        monkeypatch.setattr(codec, name, dict(getattr(codec, name)))


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return bool(a.hex() == b.hex())
    if isinstance(a, Decimal):
        return bool(a.as_tuple() == b.as_tuple())
    if isinstance(a, datetime | time):
        return str(a) == str(b) and a.fold == b.fold and repr(a.tzinfo) == repr(b.tzinfo)
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(x, y) for x, y in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, set | frozenset):
        return a == b and {(type(x), x) for x in a} == {(type(x), x) for x in b}
    if dataclasses.is_dataclass(a):
        return same(object.__getstate__(a), object.__getstate__(b))
    return bool(a == b)


def refused(value: Any) -> NotStorable:
    with pytest.raises(NotStorable) as caught:
        encode(value)
    assert str(caught.value).startswith(f"{caught.value.path}: ")
    return caught.value


_numbers = itertools.count()


def numbered(value: Any) -> str:
    """A test id for values that have no short and plain repr()."""
    return f"{next(_numbers)}-{type(value).__name__}"


def nested(levels: int, innermost: Any = 1) -> Any:
    value = innermost
    for _ in range(levels):
        value = [value]
    return value


ZONES: st.SearchStrategy[tzinfo | None] = st.one_of(
    st.none(),
    st.just(UTC),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
    st.builds(
        timezone,
        st.timedeltas(timedelta(hours=-23), timedelta(hours=23)),
        st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1),
    ),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Etc/GMT+5"]).map(ZoneInfo),
)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
FOLDS = st.sampled_from([0, 1])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.sampled_from(["$", '"$"', '{"$":"tuple"}', "\\u0000", "\\ud800", "𝄞", SafeString("<b>")]),
    st.builds(
        lambda moment, fold, zone: moment.replace(fold=fold, tzinfo=zone),
        st.datetimes() | st.times(),
        FOLDS,
        ZONES,
    ),
    st.dates(),
    st.timedeltas(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.uuids(),
    st.binary(),
    st.sampled_from([*Color, *Level, *Size, Album.Cover.HARD, Access(0), *Access, ~Access(0)]),
)
HASHABLE = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.builds(Crop, inner, inner),
        st.builds(Point, inner, inner),
    ),
    max_leaves=4,
)
KEYS = st.one_of(TEXTS, st.just("$"), HASHABLE)


def containers_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(TEXTS | st.just("$"), inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=3),
        st.lists(inner, max_size=4).map(tuple),
        st.sets(HASHABLE, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Pixel, inner, inner),
        st.builds(Album, inner, st.lists(inner, max_size=2)),
        st.builds(Crop, inner),
    )


VALUES = st.recursive(LEAVES, containers_of, max_leaves=12)


# What comes back


@given(VALUES)
def test_what_is_stored_comes_back_exactly(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(VALUES)
def test_the_text_is_json_in_ascii_of_one_line_and_without_nul(value: Any) -> None:
    text = encode(value)
    json.loads(text)
    assert text.isascii()
    assert text.isprintable()
    assert "\\u0000" not in text.replace("\\\\", "")


@given(st.lists(VALUES, max_size=4), st.dictionaries(TEXTS | st.just("$"), VALUES, max_size=3))
def test_arguments_are_always_a_json_list_and_a_json_object(
    args: list[Any], kwargs: dict[str, Any]
) -> None:
    args_text, kwargs_text = encode_args(tuple(args)), encode_kwargs(kwargs)
    assert type(json.loads(args_text)) is list
    assert type(json.loads(kwargs_text)) is dict
    assert same(decode(args_text), args)
    assert same(decode(kwargs_text), kwargs)


@given(st.lists(VALUES, max_size=4))
def test_lists_are_made_of_texts_without_decoding(values: list[Any]) -> None:
    texts = [encode(value) for value in values]
    assert codec.join_list(texts) == encode_args(values)
    for text, value in zip(texts, values, strict=True):
        assert codec.prepend(text, encode_args(values)) == encode_args([value, *values])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (-0.0, "-0.0"),
        (1e22, "1e+22"),
        (10**30, "1" + "0" * 30),
        ("ä\n", '"\\u00e4\\n"'),
        ({"b": 1, "a": [2, None]}, '{"b":1,"a":[2,null]}'),
        ({}, "{}"),
        ((), '{"$":"tuple","value":[]}'),
        (timedelta(days=1, microseconds=5), '{"$":"timedelta","value":86400000005}'),
        (Decimal("1.50"), '{"$":"Decimal","value":"1.50"}'),
        (date(2026, 1, 2), '{"$":"date","value":"2026-01-02"}'),
        (datetime(2026, 1, 2, tzinfo=UTC), '{"$":"datetime","value":"2026-01-02T00:00:00+00:00"}'),
        (b"\0\xff", '{"$":"bytes","value":"AP8="}'),
        ({1: "a"}, '{"$":"dict","value":[[1,"a"]]}'),
        ({"$": 1, "a": 2}, '{"$":"dict","value":[["$",1],["a",2]]}'),
    ],
)
def test_the_text_of_a_value_stays_what_it_is_from_release_to_release(
    value: Any, text: str
) -> None:
    assert encode(value) == text
    assert same(decode(text), value)


def test_the_text_of_a_class_names_its_module() -> None:
    named = f"{__name__}:Album.Cover"
    assert json.loads(encode(Album.Cover.HARD)) == {"$": "enum", "class": named, "value": "HARD"}


def test_an_enum_alias_comes_back_as_its_member() -> None:
    assert decode(encode(Color.CRIMSON)) is Color.RED


@pytest.mark.parametrize("fold", [0, 1])
def test_both_hours_of_the_night_when_clocks_go_back_are_told_apart(fold: int) -> None:
    moment = datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=ZoneInfo("Europe/Berlin"))
    found = decode(encode(moment))
    assert found.utcoffset() == timedelta(hours=2 - fold)
    assert found.tzinfo.key == "Europe/Berlin"


def test_a_dataclass_comes_back_as_it_was_and_not_as_init_would_make_it() -> None:
    album = Album("Sea", [1, 2])
    album.opened = 7
    assert album.caption == "Sea!"
    found = decode(encode(album))
    assert vars(found) == vars(album)
    assert found.size == 2


def test_typing_leaves_no_trace_in_a_generic_dataclass() -> None:
    found = decode(encode(Box[int](5)))
    assert found == Box(5)
    assert vars(found) == {"content": 5}


def test_offsets_of_less_than_a_second_come_back() -> None:
    zone = timezone(timedelta(microseconds=1))
    moment = datetime(2026, 1, 1, tzinfo=zone)
    assert repr(decode(encode(moment))) == repr(moment)
    named = datetime(2026, 1, 1, tzinfo=timezone(timedelta(0), "GMT"))
    assert decode(encode(named)).tzname() == "GMT"


def test_attributes_of_any_name_come_back() -> None:
    album = Album("Sea")
    vars(album).update({"$": (1,), "__class__": 2})
    assert vars(decode(encode(album))) == vars(album)


def test_fields_that_a_class_got_later_have_their_defaults() -> None:
    old_album = encode(Album("Sea")).replace('"photos":[],', "")
    assert decode(old_album).photos == []
    assert decode(encode(Album("Sea")).replace(',"size":0', "")).size == 0
    assert decode(encode(Point(1, 2)).replace("[1,2]", "[1]")) == Point(1, 0)
    with pytest.raises(UnreadableValue, match="'title' without a default"):
        decode(encode(Album("Sea")).replace('"title":"Sea",', ""))


# Types of the layers above


def test_a_registered_type_comes_back_and_may_hold_values() -> None:
    codec.register_type(Handle, "Handle", lambda handle: handle.id, Handle)
    codec.register_type(Call, "Call", dict, Call)
    call = Call(args=(Handle("a"), {"$": 1}))
    found = decode(encode([call]))
    assert found == [call]
    assert type(found[0]) is Call
    assert refused([Call(args=(1, math.nan))]).path == 'value[0]["args"][1]'


def test_a_handle_can_be_written_by_its_tag_alone() -> None:
    codec.register_type(Handle, "Handle", lambda handle: handle.id, Handle)
    given_id = uuid.uuid4()
    assert codec.handle("Handle", given_id) == encode(Handle(str(given_id)))
    assert decode(codec.prepend(codec.handle("Handle", given_id), "[2]")) == [
        Handle(str(given_id)),
        2,
    ]


def test_subclasses_are_stored_only_where_that_is_asked_for() -> None:
    codec.register_type(Handle, "Handle", lambda handle: handle.id, Handle)
    assert "SpecialHandle is not a type" in str(refused(SpecialHandle("a")))
    codec.register_type(Handle, "Handle", lambda handle: handle.id, Handle, subclasses=True)
    assert decode(encode(SpecialHandle("a"))) == Handle("a")


def test_a_tag_belongs_to_one_class_and_a_type_to_one_tag() -> None:
    codec.register_type(Handle, "Handle", str, Handle)
    with pytest.raises(InvalidOption):
        codec.register_type(Call, "Handle", dict, Call)
    with pytest.raises(InvalidOption):
        codec.register_type(Call, "tuple", dict, Call)
    for cls in (dict, str, bool, Decimal):
        with pytest.raises(InvalidOption):
            codec.register_type(cls, "mine", str, cls)


def test_a_registered_type_may_be_stored_as_what_has_a_tag_itself() -> None:
    codec.register_type(Handle, "Handle", lambda handle: uuid.UUID(handle.id), Handle)
    given_id = uuid.uuid4()
    assert decode(encode(Handle(str(given_id)))) == Handle(given_id)  # type: ignore[arg-type]


def test_a_type_that_is_stored_as_itself_for_ever_is_refused() -> None:
    codec.register_type(Chain, "Chain", lambda chain: Chain(), lambda payload: payload)
    assert "deeper than 32" in str(refused(Chain()))
    codec.register_type(Chain, "Chain", lambda chain: chain, lambda payload: payload)
    assert "contains itself" in str(refused(Chain()))


# Model instances


@pytest.mark.django_db
def test_a_model_instance_is_read_anew() -> None:
    user = User.objects.create(username="ann")
    text = encode({"user": user})
    assert '{"$":"model","class":"auth.user","value":' in text
    User.objects.update(first_name="Ann")
    found = decode(text)["user"]
    assert found == user
    assert found.first_name == "Ann"
    assert found._state.db == "default"


@pytest.mark.django_db
def test_the_user_of_a_request_is_stored_as_the_user() -> None:
    user = User.objects.create(username="ann")
    assert type(decode(encode(SimpleLazyObject(lambda: user)))) is User
    assert refused(SimpleLazyObject(lambda: "ann")).path == "value"


@pytest.mark.django_db
def test_a_deleted_row_raises_its_models_exception() -> None:
    user = User.objects.create(username="ann")
    text = encode([user])
    User.objects.all().delete()
    with pytest.raises(User.DoesNotExist):
        decode(text)


@pytest.mark.django_db
def test_an_instance_without_a_row_is_refused() -> None:
    assert "unsaved auth.User; save it" in str(refused([User(username="ann")]))
    assert refused([User(pk=5)]).path == "value[0]"
    assert refused([TaskSetRecord()]).path == "value[0]"  # has a key before it has a row
    user = User.objects.create(username="ann")
    user.delete()
    assert "unsaved" in str(refused(user))


def test_a_model_of_a_migration_is_refused() -> None:
    from django.db.migrations.state import ModelState, ProjectState

    state = ProjectState()
    state.add_model(ModelState("auth", "User", [("id", models.AutoField(primary_key=True))]))
    user = state.apps.get_model("auth", "User")(pk=1)
    user._state.adding = False
    assert "of a migration" in str(refused(user))


@pytest.mark.django_db
@pytest.mark.parametrize(
    "payload", ['"x"', '["x","default"]', '[1,"nowhere"]', "[1]", '[{"a":1},"default"]']
)
def test_a_reference_that_makes_no_sense_is_unreadable(payload: str) -> None:
    with pytest.raises(UnreadableValue):
        decode(f'{{"$":"model","class":"auth.user","value":{payload}}}')


@pytest.mark.parametrize("label", ['"auth.nobody"', '"nowhere.user"', '"user"', "5", "null"])
def test_a_model_that_is_not_installed_is_unreadable(label: str) -> None:
    with pytest.raises(UnreadableValue):
        decode(f'{{"$":"model","class":{label},"value":[1,"default"]}}')


# What is refused, and where


def local_class() -> type:
    @dataclasses.dataclass
    class Local:
        x: int

    return Local


def local_namedtuple() -> Any:
    return collections.namedtuple("Local", "x")


class Unplaced(tzinfo):
    def utcoffset(self, when: datetime | None, /) -> timedelta:
        return timedelta(0)

    def dst(self, when: datetime | None, /) -> None:
        return None

    def tzname(self, when: datetime | None, /) -> None:
        return None


class Text(str):
    __slots__ = ()


class Number(int):
    pass


BAD = [
    math.nan,
    math.inf,
    -math.inf,
    10**4300,
    -(10**4300),
    "a\0",
    "\ud800",
    "ä\udfff",
    "\ud83d\ude00",  # the two halves of one character, as two characters
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("-Infinity"),
    datetime(2026, 1, 1, tzinfo=Unplaced()),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1), "a\0")),
    time(12, tzinfo=Unplaced()),
    object(),
    object,
    print,
    lambda: None,
    (item for item in range(0)),
    range(3),
    1j,
    bytearray(b""),
    memoryview(b""),
    Path("/tmp"),
    ValueError("x"),
    Text("x"),
    Number(1),
    collections.OrderedDict(a=1),
    collections.defaultdict(int),
    collections.Counter("a"),
    collections.deque([1]),
    {}.keys(),
    gettext_lazy("text"),
    SimpleNamespace(a=1),
    Bag(),
    local_class()(1),
    sys.version_info,
    local_namedtuple()(1),
    enum.Enum("Unfindable", "A").A,  # type: ignore[attr-defined]
]


@pytest.mark.parametrize("bad", BAD, ids=numbered)
def test_what_cannot_come_back_is_refused_with_its_path(bad: Any) -> None:
    assert refused(bad).path.startswith("value")
    assert refused([1, {"when": bad}]).path.startswith('value[1]["when"]')
    assert refused(["x", bad]).path.startswith("value[1]")
    assert refused((Crop(1, bad),)).path.startswith("value[0].right")
    assert refused([Point(1, bad)]).path.startswith("value[0][1]")
    assert refused({1: "x", None: bad}).path.startswith("value[None]")
    assert refused({"$": bad}).path.startswith('value["$"]')
    assert refused({(): bad}).path.startswith("value.values()[0]")
    assert refused([nested(20, bad)]).path.startswith("value" + "[0]" * 21)
    with pytest.raises(NotStorable) as caught:
        encode_args((1, {"when": bad}))
    assert caught.value.path.startswith('args[1]["when"]')
    with pytest.raises(NotStorable) as caught:
        encode_kwargs({"x": 1, "when": bad})
    assert caught.value.path.startswith('kwargs["when"]')
    with pytest.raises(NotStorable) as caught:
        encode(bad, path="return value")
    assert caught.value.path.startswith("return value")


@pytest.mark.parametrize("bad", ["a\0", "\ud800", 10**4300, math.nan, Text("x")], ids=numbered)
def test_keys_are_held_to_the_same_rules(bad: Any) -> None:
    assert refused([{"a": 1, bad: 1}]).path == "value[0].keys()[1]"
    assert refused({1: 1, bad: 1}).path == "value.keys()[1]"
    assert refused({(1, bad): 1}).path == "value.keys()[0][1]"
    with pytest.raises(NotStorable) as caught:
        encode_kwargs({bad: 1})
    assert caught.value.path in ("kwargs", "kwargs.keys()[0]")


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (collections.OrderedDict(), "collections.OrderedDict is not .* dict"),
        (gettext_lazy("x"), r"str\(value\)"),
        (Text("x"), "plain str"),
        (User.objects.none(), "list of primary keys"),
        (bytearray(), r"bytes\(value\)"),
        (iter([]), r"list\(value\)"),
        (print, "its name"),
        (Plain(), "such as an id"),
        (Bag(), "holds more than its fields"),
        (local_class()(1), "at the top level of a module"),
    ],
)
def test_a_refusal_says_what_to_do(value: Any, advice: str) -> None:
    with pytest.raises(NotStorable, match=advice):
        encode(value)


def test_an_instance_that_is_not_as_its_class_says_is_refused() -> None:
    album = Album("Sea")
    del album.title
    assert "no value for its field 'title'" in str(refused(album))
    pixel = Pixel(1, 2)
    pixel.z = 3  # type: ignore[attr-defined]
    assert "more or less than its fields" in str(refused(pixel))
    assert "more or less than its fields" in str(refused(tuple.__new__(Point, [1])))
    stray = object.__new__(Color)
    stray._name_ = "GREEN"
    assert "can be found by its name" in str(refused(stray))


def test_paths_of_long_keys_are_short() -> None:
    assert len(refused({"k" * 10_000: math.nan}).path) < 100


def test_the_longest_integers_come_back_whatever_python_is_set_to() -> None:
    longest, limit = 10**4300 - 1, sys.get_int_max_str_digits()
    assert decode(encode([-longest])) == [-longest]
    try:
        sys.set_int_max_str_digits(0)
        assert decode(encode(longest)) == longest
        assert refused([10**4300]).path == "value[0]"
        assert encode("x" * 5000) == '"' + "x" * 5000 + '"'
        sys.set_int_max_str_digits(640)
        assert refused([longest]).path == "value[0]"
        with pytest.raises(UnreadableValue):
            decode("9" * 641)
    finally:
        sys.set_int_max_str_digits(limit)


def test_values_nest_up_to_32_levels() -> None:
    assert decode(encode(nested(32))) == nested(32)
    assert refused(nested(33)).path == "value" + "[0]" * 32
    assert decode(encode_args([nested(32)])) == [nested(32)]
    assert decode(encode_kwargs({"a": nested(32)})) == {"a": nested(32)}
    with pytest.raises(NotStorable):
        encode_args([nested(33)])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: [value],
        lambda value: (value,),
        lambda value: frozenset([value]),
        lambda value: {"a": value},
        lambda value: {1: value},
        Crop,
        Point,
    ],
    ids=numbered,
)
def test_every_container_is_one_level(wrap: Any) -> None:
    value: Any = datetime(2026, 1, 1, fold=1, tzinfo=timezone(timedelta(1) / 2, "noon"))
    for _ in range(32):
        value = wrap(value)
    assert same(decode(encode(value)), value)
    assert "deeper than 32 levels" in str(refused(wrap(value)))


@pytest.mark.parametrize(
    "wrap", [lambda value: [value], lambda value: (value,), Album], ids=numbered
)
def test_values_of_any_depth_are_refused_without_a_recursion_error(wrap: Any) -> None:
    value: Any = 1
    for _ in range(100_000):
        value = wrap(value)
    try:
        assert "deeper than 32 levels" in str(refused(value))
    finally:
        while type(value) is Album:  # Python itself takes deep dataclasses apart recursively
            value = value.title


def test_deep_text_is_unreadable_without_a_recursion_error() -> None:
    for text in ("[" * 100_000 + "]" * 100_000, '{"$":' * 100_000):
        with pytest.raises(UnreadableValue):
            decode(text)


def test_circles_are_refused_where_they_close() -> None:
    ring: list[Any] = [1]
    ring.append({"back": ring})
    refusal = refused([0, ring])
    assert refusal.path == 'value[1][1]["back"]'
    assert "contains itself" in str(refusal)
    album = Album([])
    album.title.append(album)
    assert refused(album).path == "value.title[0]"
    mapping: dict[Any, Any] = {}
    mapping[1] = (mapping,)
    assert refused(mapping).path == "value[1][0]"
    many = [[0] * 10_000]
    many[0][0] = many  # type: ignore[call-overload]
    assert refused(many).path == "value[0][0]"


def test_one_object_in_two_places_is_no_circle() -> None:
    twice = [1]
    assert decode(encode([twice, (twice,)])) == [[1], ([1],)]


@override_settings(TASKSETS={"MAX_VALUE_BYTES": 1000})
@pytest.mark.parametrize(
    "wrap", [str, lambda text: [text], lambda text: {"a": (text,)}], ids=numbered
)
def test_text_has_a_limit(wrap: Any) -> None:
    room = 1000 - len(encode(wrap("")))
    assert len(encode(wrap("x" * room))) == 1000
    refusal = refused(wrap("x" * (room + 1)))
    assert refusal.path == "value"
    assert "more than 1000 bytes" in str(refusal)
    assert refused(wrap("ä" * (room // 6 + 1))).path == "value"


@override_settings(TASKSETS={"MAX_VALUE_BYTES": 1000})
def test_each_text_has_its_limit() -> None:
    with pytest.raises(NotStorable) as caught:
        encode_args(["x" * 600, "y" * 600])
    assert caught.value.path == "args"
    with pytest.raises(NotStorable) as caught:
        encode_kwargs({"a": "x" * 600, "b": ["y" * 600]})
    assert caught.value.path == "kwargs"
    assert len(encode_args([["x" * 480], "é" * 80])) <= 1000
    assert len(encode_kwargs({"x" * 480 + "é": [("é" * 50)]})) <= 1000


@override_settings(TASKSETS={"MAX_VALUE_BYTES": 10})
def test_256_bytes_are_always_granted() -> None:
    assert encode("x" * 254)
    assert encode([["x" * 250]])
    assert refused("x" * 255).path == "value"


def test_little_memory_that_would_be_endless_text_is_refused_at_once() -> None:
    value: Any = "x"
    for _ in range(32):
        value = [value, value]
    assert refused(value).path == "value"
    assert refused([["x" * 100_000] * 100_000]).path == "value"
    assert refused({"a": [[b"x" * 100_000] * 100_000]}).path == "value"


# Reading what somebody else wrote


HOSTILE = [
    "",
    "[1",
    "nope",
    '{"$":"unknown","value":1}',
    '{"$":null}',
    '{"$":["tuple"],"value":[]}',
    '{"$":{},"value":[]}',
    '{"$":"tuple"}',
    '{"$":"tuple","value":5}',
    '{"$":"set","value":[[]]}',
    '{"$":"dict","value":[[[],1]]}',
    '{"$":"dict","value":[1]}',
    '{"$":"datetime","value":5}',
    '{"$":"datetime","value":"yesterday"}',
    '{"$":"datetime","value":["2026-01-01T00:00:00","../../etc/passwd",0]}',
    '{"$":"datetime","value":["2026-01-01T00:00:00","Nowhere/Land",0]}',
    '{"$":"datetime","value":["2026-01-01T00:00:00",5,0]}',
    '{"$":"datetime","value":["2026-01-01T00:00:00",null,7]}',
    '{"$":"date","value":"2026-13-01"}',
    '{"$":"time","value":null}',
    '{"$":"timedelta","value":"x"}',
    '{"$":"timedelta","value":1e300}',
    '{"$":"Decimal","value":"x"}',
    '{"$":"UUID","value":5}',
    '{"$":"bytes","value":"!"}',
    '{"$":"enum","class":"os:system","value":"RED"}',
    '{"$":"enum","class":"os","value":"RED"}',
    '{"$":"enum","class":5,"value":"RED"}',
    '{"$":"enum","class":"","value":"RED"}',
    '{"$":"enum","class":"builtins:object","value":"RED"}',
    f'{{"$":"enum","class":"{__name__}:Color","value":"GREEN"}}',
    f'{{"$":"enum","class":"{__name__}:Color","value":[]}}',
    f'{{"$":"enum","class":"{__name__}:Color.RED","value":"RED"}}',
    f'{{"$":"enum","class":"{__name__}:Color.RED.name","value":"RED"}}',
    f'{{"$":"enum","class":"{__name__}:Access","value":"READ"}}',
    f'{{"$":"enum","class":"{__name__}:Plain","value":"RED"}}',
    f'{{"$":"enum","class":"{__name__}:refused","value":"RED"}}',
    f'{{"$":"enum","class":"{__name__}:Path","value":"RED"}}',
    f'{{"$":"enum","class":"{__name__}:HOSTILE","value":"RED"}}',
    '{"$":"enum","class":"__main__:Color","value":"RED"}',
    f'{{"$":"dataclass","class":"{__name__}:Plain","value":{{}}}}',
    f'{{"$":"dataclass","class":"{__name__}:Color","value":{{}}}}',
    f'{{"$":"dataclass","class":"{__name__}:Crop","value":{{"left":1,"right":2,"other":3}}}}',
    f'{{"$":"dataclass","class":"{__name__}:Crop","value":5}}',
    f'{{"$":"dataclass","class":"{__name__}:Bag","value":{{}}}}',
    f'{{"$":"namedtuple","class":"{__name__}:Plain","value":[]}}',
    f'{{"$":"namedtuple","class":"{__name__}:Point","value":[1,2,3]}}',
    f'{{"$":"namedtuple","class":"{__name__}:Point","value":[]}}',
    f'{{"$":"namedtuple","class":"{__name__}:Point","value":5}}',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_that_is_not_ours_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableValue):
        decode(text)


def test_json_of_others_without_the_key_is_read_as_it_stands() -> None:
    assert decode(' {"a": [1, 2.50, "\\u0024"]} ') == {"a": [1, 2.5, "$"]}


class NoImports(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        raise AssertionError(f"{fullname} was imported")


def decode_without_imports(text: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "meta_path", [NoImports()])
        return decode(text)


@pytest.mark.parametrize("tag", ["enum", "dataclass", "namedtuple"])
@pytest.mark.parametrize("name", ["antigravity:x", "turtledemo.nim:Stick", "a.b:C", ":", "", "."])
def test_reading_imports_nothing(tag: str, name: str) -> None:
    with pytest.raises(UnreadableValue, match=r"is imported in this process"):
        decode_without_imports(json.dumps({"$": tag, "class": name, "value": {}}))


@given(
    tag=st.sampled_from(sorted(codec._by_tag)) | TEXTS,
    name=st.sampled_from(sorted(sys.modules)).map("{}:x".format) | TEXTS,
    payload=st.recursive(
        st.none() | st.integers() | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    ),
)
def test_random_text_is_read_or_unreadable_and_imports_nothing(
    tag: str, name: str, payload: Any
) -> None:
    with contextlib.suppress(UnreadableValue):
        decode_without_imports(json.dumps({"$": tag, "class": name, "value": payload}))


def test_reading_runs_no_getattr_of_a_module_and_no_property(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("lazy_module")
    module.__getattr__ = lambda name: pytest.fail(f"{name} was asked for")  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy_module", module)
    monkeypatch.setitem(sys.modules, "no_module", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "odd_module", object())  # type: ignore[arg-type]
    module.lazy = SimpleLazyObject(lambda: pytest.fail("was set up"))  # type: ignore[attr-defined]
    for name in ("lazy_module:Color", "lazy_module:lazy", "no_module:x", "odd_module:x"):
        with pytest.raises(UnreadableValue):
            decode(f'{{"$":"enum","class":"{name}","value":"RED"}}')


def test_a_class_is_known_by_its_own_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "Renamed", Color, raising=False)
    with pytest.raises(UnreadableValue):
        decode(f'{{"$":"enum","class":"{__name__}:Renamed","value":"RED"}}')
    monkeypatch.setattr(Color, "__module__", "__main__")
    assert refused(Color.RED).path == "value"


def test_reading_a_dataclass_runs_no_code_of_its_class() -> None:
    text = encode(Watched(1))
    assert Watched.calls
    Watched.calls.clear()
    found = decode(text)
    assert not Watched.calls
    assert vars(found) == {"x": 1}


# Whatever comes

SCRAPS = st.one_of(
    LEAVES,
    st.floats(),
    st.text(),
    st.decimals(),
    st.sampled_from(range(len(BAD))).map(lambda index: BAD[index]),  # their repr() may fail
    st.complex_numbers(),
    st.functions(),
    st.builds(SimpleNamespace),
)
ANYTHING = st.recursive(
    SCRAPS,
    lambda inner: st.one_of(
        containers_of(inner),
        st.dictionaries(st.text() | st.floats() | st.decimals(allow_nan=False), inner, max_size=3),
        st.builds(Album, inner),
        st.integers(1, 40).flatmap(lambda levels: inner.map(lambda v: nested(levels, v))),
    ),
    max_leaves=8,
)


@given(ANYTHING)
def test_whatever_it_is_comes_back_or_is_refused_with_a_path(value: Any) -> None:
    text, refusal = stored_or_refused([value])
    if refusal is None:
        assert same(decode(text), [value])
    else:
        assert refusal.path.startswith("args[0]")
        assert str(refusal).startswith(f"{refusal.path}: ")
        assert len(refusal.path) < 4000


def stored_or_refused(args: list[Any]) -> tuple[str, NotStorable | None]:
    try:
        return encode_args(args), None
    except NotStorable as refusal:
        return "", refusal


def test_nothing_of_the_codec_is_pickled() -> None:
    for module in (codec, codec_types):
        assert not {"pickle", "marshal", "shelve", "eval", "exec"} & set(vars(module))


def test_forms_are_told_apart_by_their_tags() -> None:
    forms = [*codec_types.FORMS.values(), *codec_types.KINDS]
    assert len({form.tag for form in forms}) == len(forms)


def test_markup_that_was_marked_safe_stays_so_and_text_never_becomes_so() -> None:
    assert type(decode(encode(mark_safe("<b>")))) is SafeString
    assert type(decode(encode({"$": "SafeString", "value": "<b>"}))) is dict


def test_groups_in_sets_and_keys_come_back(db: None) -> None:
    group = Group.objects.create(name="a")
    assert decode(encode({group: {group}})) == {group: {group}}


def test_typed_dicts_are_dicts() -> None:
    movie: Movie = {"name": "x"}
    assert decode(encode(movie)) == {"name": "x"}


@pytest.fixture(scope="module", autouse=True)
def _python_reads_as_many_digits_as_by_default() -> Iterator[None]:
    assert sys.get_int_max_str_digits() == codec_types.MAX_DIGITS
    yield
    assert sys.get_int_max_str_digits() == codec_types.MAX_DIGITS


@dataclasses.dataclass
class Counted:
    """Its second field stays on the class until somebody sets it."""

    name: str
    seen: bool = dataclasses.field(init=False, default=False)


def test_a_default_that_was_never_set_is_no_reason_to_refuse() -> None:
    untouched, touched = Counted("a"), Counted("b")
    touched.seen = True
    assert codec.decode(codec.encode([untouched, touched])) == [untouched, touched]
