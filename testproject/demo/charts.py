"""The geometry of the report's chart; `chart.svg` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.template.defaultfilters import truncatechars

from .figures import size, thousands
from .reports import Kind

# All are whole numbers: a template would write a fraction with the comma of the user's language.
WIDTH = 720
ROW = 34
BAR = 18
LEFT = 104
RIGHT = 176
LABEL_LENGTH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One row of the chart."""

    label: str
    value: str
    y: int
    text_y: int
    width: int
    value_x: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart with a row for each suffix."""

    bars: list[Bar]
    height: int
    width: int = WIDTH
    label_x: int = LEFT - 12
    left: int = LEFT
    thickness: int = BAR

    @property
    def summary(self) -> str:
        """The chart in words, for those who do not see it."""
        return "; ".join(f"{bar.label}: {bar.value}" for bar in self.bars)


def bar_chart(kinds: Sequence[Kind]) -> Chart:
    """How many bytes the files of each suffix hold."""
    largest = max((kind["size"] for kind in kinds), default=0) or 1
    bars = []
    for number, kind in enumerate(kinds):
        width = max(2, (WIDTH - LEFT - RIGHT) * kind["size"] // largest)
        files = "1 file" if kind["files"] == 1 else f"{thousands(kind['files'])} files"
        bars.append(
            Bar(
                label=truncatechars(kind["kind"], LABEL_LENGTH),
                value=f"{size(kind['size'])} in {files}",
                y=number * ROW + (ROW - BAR) // 2,
                text_y=number * ROW + ROW // 2,
                width=width,
                value_x=LEFT + width + 10,
            )
        )
    return Chart(bars=bars, height=len(kinds) * ROW)
