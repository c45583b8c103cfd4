"""Runs functions at the same moment, each on a connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connections

TIMEOUT = 60


def together(*functions: Callable[[], Any]) -> list[Any]:
    """Call all of them at once, each in its own thread; what they returned, in their order.

    The first exception is raised once all have ended.
    """
    barrier = threading.Barrier(len(functions), timeout=TIMEOUT)
    results: list[Any] = [None] * len(functions)
    errors: list[BaseException] = []

    def call(index: int, function: Callable[[], Any]) -> None:
        try:
            connections["default"].ensure_connection()
            barrier.wait()
            results[index] = function()
        except BaseException as error:  # noqa: BLE001  raised in the test's own thread
            errors.append(error)
            barrier.abort()
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=call, args=pair, daemon=True) for pair in enumerate(functions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "hangs"
    if errors:
        raise errors[0]
    return results


class Background:
    """A function that goes on in a thread of its own while the test does something else."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:  # noqa: BLE001  raised in the test's own thread
            self.error = error
        finally:
            connections.close_all()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> Any:
        """What the function returned, once it has; raises what it raised."""
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive(), "hangs"
        if self.error is not None:
            raise self.error
        return self.result
