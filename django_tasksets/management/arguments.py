"""Kinds of arguments: each says in its own words what it would have taken."""

from __future__ import annotations

import argparse
import re

from ..exceptions import InvalidOption
from ..packing import checked_queue


def positive(text: str) -> int:
    """An argument that is a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def size(text: str) -> int:
    """An argument like 500M, in bytes."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError("expected a number of bytes, or with K, M or G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def seconds(text: str) -> float:
    """An argument that is a length of time."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number


def some_seconds(text: str) -> float:
    """An argument that is a length of time, and not none."""
    number = seconds(text)
    if not number:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def queue_names(text: str) -> tuple[str, ...]:
    """An argument that is a list of queue names; `*` is all."""
    if text == "*":
        return ()
    try:
        return tuple(checked_queue(name.strip(), "--queues") for name in text.split(","))
    except InvalidOption as error:
        raise argparse.ArgumentTypeError(str(error)) from error
