"""How the supervisor starts processes: by fork, each with its handlers before its first signal."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Final, TypeAlias

from django.core.cache import caches
from django.db import connections

Handler: TypeAlias = Callable[[int, FrameType | None], None]
InChild: TypeAlias = Callable[[Mapping[int, Handler]], int]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class Forks:
    """Starts children, which notice when this process is gone.

    Fork shares what is loaded, and takes milliseconds. It is safe here because this process has one
    thread, and neither connections nor pools of them.
    """

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("fork")
        close_connections()
        # What is loaded stays: children neither look for garbage in it nor, by looking, have their
        # own copies of its pages.
        gc.collect()
        gc.freeze()
        # Children hold the reading end; that this process is gone reads as its end.
        self._lifeline, self._writer = os.pipe()
        # Else nobody would be told how a child died.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def start(self, name: str, main: Callable[..., None], *arguments: Any) -> BaseProcess:
        """Start a child that calls main(*arguments, in_child).

        It calls `in_child` with its handlers of signals, and is given what becomes readable when
        its parent is gone.
        """
        process = self._context.Process(target=main, args=(*arguments, self._in_child), name=name)
        with _blocked_signals() as self._mask:
            process.start()
        return process

    def pipe(self) -> tuple[Connection[Any, Any], Connection[Any, Any]]:
        """A pipe to a child: its end, and ours."""
        return self._context.Pipe(duplex=False)

    def let_go(self) -> None:
        """Be gone, as far as the children can see."""
        os.close(self._writer)
        gc.unfreeze()

    def _in_child(self, handlers: Mapping[int, Handler]) -> int:
        signal.set_wakeup_fd(-1)
        os.close(self._writer)
        for number in SIGNALS:
            # Those of the terminal come to all its processes: what they mean, the parent says.
            # Not SIG_IGN, which programs that tasks start would inherit.
            signal.signal(number, handlers.get(number, _ignore))
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        # What tasks start is theirs: a Ctrl-C at the terminal is for the parent of this process
        # alone, and processes that they fork can be ended like any other.
        os.setpgid(0, 0)
        os.register_at_fork(
            before=_put_off, after_in_parent=_take_again, after_in_child=_have_no_handlers
        )
        return self._lifeline


def close_connections() -> None:
    """Close what must not be shared with a child: connections and pools of them."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        if hasattr(connection, "close_pool"):
            connection.close_pool()
    caches.close_all()


def is_stopped(child: BaseProcess) -> bool:
    """Whether a signal has stopped it, and none has made it go on."""
    if child.pid is None or not hasattr(os, "waitid"):  # macOS has it only of late.
        return False
    try:
        # It is only looked at: whoever waits for its end finds all as it was.
        found = os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return found is not None


def cause_of_death(code: int) -> str:
    """A child's exit code in words."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"died by {signal.Signals(-code).name}"
    except ValueError:
        return f"died by signal {-code}"


@contextmanager
def _blocked_signals() -> Iterator[set[int]]:
    """No signal comes in between; yields what was blocked before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# For each thread that forks, what was blocked before.
_masks = threading.local()


def _put_off() -> None:
    """A signal that came between the fork and the end of our handlers would go to them."""
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _take_again() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _have_no_handlers() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    _take_again()


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not for us."""
