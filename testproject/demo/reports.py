"""What the callback makes of all surveys: the report of a census."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TypedDict

from .surveys import FileSurvey

KINDS_SHOWN = 8
LARGEST_SHOWN = 10
OTHERS = "others"


class Totals(TypedDict):
    """Sums over some files."""

    files: int
    lines: int
    size: int
    functions: int
    classes: int


class Kind(Totals):
    """Sums over the files of one suffix."""

    kind: str


class LargeFile(TypedDict):
    """One file of the list of the largest."""

    path: str
    size: int
    lines: int


class LongestLine(TypedDict):
    """Where the longest line of the tree is."""

    path: str
    length: int


class Report(TypedDict):
    """Everything that the page and the terminal show; stored as JSON."""

    totals: Totals
    kinds: list[Kind]
    """The largest first; beyond KINDS_SHOWN together as OTHERS."""
    largest: list[LargeFile]
    longest_line: LongestLine


def build_report(root: Path, surveys: Sequence[FileSurvey]) -> Report:
    """Add up what was learnt about each file of the tree."""
    by_size = sorted(surveys, key=attrgetter("size"), reverse=True)
    longest = max(surveys, key=attrgetter("longest_line"))
    return Report(
        totals=_sum(surveys),
        kinds=_kinds(surveys),
        largest=[
            LargeFile(path=_within(root, item.path), size=item.size, lines=item.lines)
            for item in by_size[:LARGEST_SHOWN]
        ],
        longest_line=LongestLine(path=_within(root, longest.path), length=longest.longest_line),
    )


def _sum(surveys: Iterable[FileSurvey]) -> Totals:
    totals = Totals(files=0, lines=0, size=0, functions=0, classes=0)
    for survey in surveys:
        totals["files"] += 1
        totals["lines"] += survey.lines
        totals["size"] += survey.size
        totals["functions"] += survey.functions
        totals["classes"] += survey.classes
    return totals


def _kinds(surveys: Iterable[FileSurvey]) -> list[Kind]:
    by_kind: dict[str, list[FileSurvey]] = {}
    for survey in surveys:
        by_kind.setdefault(survey.kind, []).append(survey)
    ranked = sorted(by_kind, key=lambda kind: sum(item.size for item in by_kind[kind]))[::-1]
    # A single rest would be named "others" for nothing.
    shown = ranked if len(ranked) == KINDS_SHOWN + 1 else ranked[:KINDS_SHOWN]
    kinds = [Kind(kind=kind, **_sum(by_kind[kind])) for kind in shown]
    rest = [item for kind in ranked[len(shown) :] for item in by_kind[kind]]
    return [*kinds, Kind(kind=OTHERS, **_sum(rest))] if rest else kinds


def _within(root: Path, path: str) -> str:
    return Path(path).relative_to(root).as_posix()
