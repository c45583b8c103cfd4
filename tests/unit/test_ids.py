"""Ids, as databases have them."""

from __future__ import annotations

import copy
import uuid
from typing import Any

import pytest

from django_tasksets.ids import new_id, read_id


@pytest.mark.parametrize("made", [new_id(), uuid.uuid4(), uuid.UUID(int=0)], ids=["7", "4", "0"])
def test_what_is_read_is_a_uuid_like_any_other(made: uuid.UUID) -> None:
    for text in (made.hex, str(made)):
        found = read_id(text)
        assert found == made
        assert hash(found) == hash(made)
        assert (str(found), found.version, found.is_safe) == (str(made), made.version, made.is_safe)
        assert copy.deepcopy(found) == made


def test_a_new_one_is_of_version_7() -> None:
    made = new_id()
    assert made == uuid.UUID(str(made))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1" * 31,
        "1" * 33,
        "x" * 32,
        "-" * 32,
        "A" * 32,
        f"0x{'1' * 30}",
        f"1_{'1' * 30}",
        f" {'1' * 31}",
        f"+{'1' * 31}",
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"id|int"):
        read_id(text)


@pytest.mark.parametrize("value", [None, 5, b"1" * 32])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        read_id(value)
