"""What was measured, as a table."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.benchmarks import lab
from tests.benchmarks.floor import Timing
from tests.benchmarks.peers.contenders import Contender


@dataclass(slots=True)
class Outcomes:
    """What one contender did, a timing a round."""

    count: int = 0
    timings: list[Timing] = field(default_factory=list)
    reason: str = ""
    """Why there is not one for each round, if so."""

    def add(self, count: int, timing: Timing) -> None:
        self.count = count
        self.timings.append(timing)

    @property
    def rates(self) -> list[float]:
        """Calls a second, of each round."""
        return [self.count / timing.whole for timing in self.timings]


def table(outcomes: Mapping[Contender, Outcomes], references: Sequence[str]) -> str:
    """One line for each contender in Markdown, with the ratios of the references' rates to its."""
    compared = [c for c in outcomes if c.name in references and outcomes[c].timings]
    titles = ["", "Calls", "Seconds (range)", "of which submitting", "Calls/s"]
    titles += [f"{_short(contender)} ÷ it" for contender in compared]
    lines = [titles, ["---"] * len(titles)]
    for contender, found in outcomes.items():
        lines.append([contender.title, *_cells(found)])
        lines[-1] += [_ratio(outcomes[reference], found) for reference in compared]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def versions() -> str:
    """What it ran on, as far as this process knows."""
    import django

    python, release = platform.python_version(), django.__version__
    return f"{os.cpu_count()} cores, Python {python}, Django {release}"


def _cells(found: Outcomes) -> Iterator[str]:
    if not found.timings:
        yield from ("", f"not run: {found.reason}", "", "")
        return
    yield f"{found.count:,}"
    yield lab.spread([timing.whole for timing in found.timings])
    yield f"{statistics.median(timing.enqueue for timing in found.timings):.2f}"
    yield f"{statistics.median(found.rates):,.0f}"


def _ratio(reference: Outcomes, found: Outcomes) -> str:
    """The median of the rounds' own ratios: the machine is not equally fast in all of them."""
    pairs = zip(reference.rates, found.rates, strict=False)
    ratios = [our / their for our, their in pairs]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def _short(contender: Contender) -> str:
    return f"ours, {contender.title.strip('*').rpartition(', ')[2]}"
