"""What the terminal shows: the bar, then the report."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

from .figures import size
from .reports import Report

BAR = 28
LARGEST_SHOWN = 5


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


FULL, EMPTY = ("█", "░") if _can_print("█░") else ("#", ".")


class Bar:
    """One line that moves on a terminal; a line each second where output is kept."""

    def __init__(self) -> None:
        self._moves = sys.stdout.isatty()
        self._written_at = 0.0

    def show(self, progress: dict[str, Any]) -> None:
        """Draw where it is now."""
        line = _bar_line(progress)
        if self._moves:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:width]:<{width}}", end="", flush=True)
        elif time.monotonic() - self._written_at >= 1:
            self._written_at = time.monotonic()
            print(line, flush=True)

    def close(self, progress: dict[str, Any]) -> None:
        """Draw the last state, and go on below."""
        self._written_at = 0.0
        self.show(progress)
        if self._moves:
            print()


def print_report(progress: dict[str, Any]) -> None:
    """The callback's report."""
    for line in _report_lines(progress["report"], progress["seconds"]):
        print(line)


def _bar_line(progress: dict[str, Any]) -> str:
    total, finished = progress["total"], progress["finished"]
    full = BAR * finished // total if total else 0
    line = (
        f"  {FULL * full}{EMPTY * (BAR - full)} {progress['percent']:>3} %"
        f"  {finished:,} of {total:,} files"
    )
    if progress["rate"]:
        line += f", {progress['rate']:,} a second"
    if progress["failed"]:
        line += f", {progress['failed']:,} failed"
    return line


def _report_lines(report: Report, seconds: float) -> Iterator[str]:
    totals = report["totals"]
    yield f"  {totals['files']:,} files in {seconds} seconds, from the button to the report:"
    yield (
        f"  {size(totals['size'])}, {totals['lines']:,} lines, "
        f"{totals['functions']:,} functions, {totals['classes']:,} classes"
    )
    yield ""
    yield "  By suffix"
    most = max(kind["size"] for kind in report["kinds"]) or 1
    for kind in report["kinds"]:
        bar = FULL * max(1, BAR * kind["size"] // most)
        yield f"  {kind['kind']:>12}  {size(kind['size']):>10}  {kind['files']:>6,} files  {bar}"
    yield ""
    yield "  Largest files"
    for file in report["largest"][:LARGEST_SHOWN]:
        yield f"  {size(file['size']):>12}  {file['path']}"
