"""What a call is given: its own arguments, and before them what it is a callback for."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from . import codec
from .exceptions import UnknownId, UnreadableValue
from .statuses import Role
from .store.contract import Claimed, Store

T = TypeVar("T")

# As a set: an enumeration takes its time to say what its members are.
ROLES: Final = frozenset(Role.values)
# How many return values are read at a time.
PAGE: Final = 2000


class Reads(Protocol):
    """How results are read that a callback is to be given."""

    def __call__(self, read: Callable[[], T]) -> T:
        """What `read` returns, which asks the database and nothing else."""


def read_here(read: Callable[[], T]) -> T:
    """On this thread's connection, so in the transaction that is open there."""
    return read()


def arguments(store: Store, claimed: Claimed, *, immutable: bool, reads: Reads) -> list[Any]:
    """The positional arguments of a claimed subtask: what a callback is given comes first.

    Raises UnreadableValue, UnknownId, whatever reading a value of a class raises, and the
    database's errors.
    """
    args: list[Any] = codec.decode(claimed.args)
    # A text or an object would be taken apart into arguments, too.
    if not isinstance(args, list):
        raise UnreadableValue("The arguments are not a JSON list")
    if claimed.role not in ROLES:
        raise UnreadableValue(f"No subtask has the role {claimed.role!r}")
    if claimed.role == Role.MEMBER or immutable:
        return args
    if claimed.role == Role.ON_SUCCESS:
        return [_results(store, claimed, reads), *args]
    return [codec.decode(codec.handle("TaskSetResult", str(claimed.taskset_id))), *args]


def _results(store: Store, claimed: Claimed, reads: Reads) -> list[Any]:
    """The members' return values in their order: read now, never copied into the callback."""
    values: list[Any] = []
    # Many texts as one list are read in a fraction of the time that they take one by one.
    for texts in _pages(store, claimed, reads):
        found = [text for text in texts if text is not None]
        if len(found) != len(texts):
            raise UnknownId("What a member of the set returned was forgotten")
        decoded = codec.decode(codec.join_list(found))
        if len(decoded) != len(found):
            raise UnreadableValue("What a member of the set returned is not the text of one value")
        values += decoded
    return values


def _pages(store: Store, claimed: Claimed, reads: Reads) -> Iterator[list[str | None]]:
    """The texts of the members' return values in their order."""
    taskset_id = claimed.taskset_id
    if taskset_id is None:
        raise UnreadableValue("A callback without a set has no results")
    last, count = -1, PAGE
    while count == PAGE:
        page = reads(partial(store.return_values, taskset_id, last, PAGE))
        yield [text for _, text in page]
        last, count = page[-1][0] if page else last, len(page)


def returned(subtask_id: uuid.UUID, text: str | None) -> Any:
    """What a successful subtask returned; raises UnknownId if that was forgotten."""
    # A None that was returned is stored as a text of its own.
    if text is None:
        raise UnknownId(f"What subtask {subtask_id} returned was forgotten")
    return codec.decode(text)
