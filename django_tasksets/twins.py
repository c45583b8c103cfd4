"""Async twins: every call that reads, writes or waits has one, and its body is written once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """`function` in the thread that owns this context's database connections."""
    return sync_to_async(function, thread_sensitive=True)


def twin(method: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The async twin of a method; it calls whatever a subclass made of that method."""
    name = method.__name__

    @wraps(method)
    async def call(self: Any, /, *args: Any, **kwargs: Any) -> T:
        result: T = await in_thread(getattr(self, name))(*args, **kwargs)
        return result

    call.__name__ = f"a{name}"
    call.__qualname__ = method.__qualname__.replace(name, f"a{name}")
    call.__doc__ = f"See {name}()."
    return call  # type: ignore[return-value]  # `self` is the first of P
