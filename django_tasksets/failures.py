"""What is kept of an exception: enough to understand it and to raise it again, never the locals."""

from __future__ import annotations

import hashlib
import json
import traceback
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from . import codec
from .calls import Failure
from .conf import current
from .exceptions import NotStorable
from .redaction import mask
from .store.contract import Claimed

MAX_MESSAGE = 2_000
MAX_CLASS_NAME = 255
OURS = __name__.partition(".")[0] + "."


def describe(error: BaseException, hidden: Sequence[str] = ()) -> Failure:
    """What will be stored of `error`. Never raises: an exception is user code, too.

    The texts in `hidden` are not in its words: those are shown, logged and told to receivers.
    """
    cls = type(error)
    name = clean(f"{cls.__module__}.{cls.__qualname__}")[:MAX_CLASS_NAME]
    return Failure(
        exception_class=name,
        message=mask(clean(_message(error)), hidden)[:MAX_MESSAGE],
        traceback=_capped(mask(clean(_traceback(error)), hidden)),
        fingerprint=fingerprint(name, _place(error.__traceback__)),
        args=_args(error),
    )


def fingerprint(exception_class: str, place: str) -> str:
    """Equal for failures of one exception class at one place."""
    text = f"{exception_class} {place}".encode(errors="replace")
    return hashlib.md5(text, usedforsecurity=False).hexdigest()


def error_line(failure: Failure, worker_id: uuid.UUID, claimed: Claimed) -> str:
    """The failure as a line for the `errors` column, without its line end. Never raises."""
    try:
        return codec.encode(_error_fields(failure, worker_id, claimed))
    except NotStorable:
        # Together they are too long: what went wrong counts more than where. These few are stored
        # whatever the limit is, or nothing would be known of it at all.
        shorter = replace(failure, traceback="", args=None, extra={})
        return json.dumps(_error_fields(shorter, worker_id, claimed), separators=(",", ":"))


def _error_fields(failure: Failure, worker_id: uuid.UUID, claimed: Claimed) -> dict[str, Any]:
    return {
        "exception_class": failure.exception_class,
        "message": failure.message,
        "traceback": failure.traceback,
        "fingerprint": failure.fingerprint,
        "args": failure.args,
        "worker_id": str(worker_id),
        "attempt": claimed.attempts + 1,
        "at": datetime.now(UTC).isoformat(),
        **failure.extra,
    }


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as nested:  # noqa: BLE001  the exception's own __str__ is user code
        return f"<str() of it raised {type(nested).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception as nested:  # noqa: BLE001  it calls methods of the exception
        return f"<formatting its traceback raised {type(nested).__name__}>"


def _args(error: BaseException) -> str | None:
    """The exception's arguments, unless they cannot be stored or are out of all proportion."""
    try:
        # An OSError leaves the file's name out of its args.
        given = error.__reduce__()[1] if isinstance(error, OSError) else error.args
        args = codec.encode_args(given)
    except Exception:  # noqa: BLE001  NotStorable, or whatever the arguments' own code raises
        return None
    return args if len(args) <= current().MAX_TRACEBACK_BYTES else None


def _place(trace: TracebackType | None) -> str:
    """The function that raised, without line numbers: edits elsewhere in a file change those."""
    place = ""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if not module.startswith(OURS):
            place = f"{module}.{trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return place


def clean(text: str) -> str:
    """Text that every database stores and every page shows."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _capped(text: str) -> str:
    limit = current().MAX_TRACEBACK_BYTES
    if len(text) <= limit:
        return text
    head, tail = text[: limit // 2], text[len(text) - limit // 2 :]
    return f"{head}\n... {len(text) - limit} characters left out ...\n{tail}"
