"""All benchmarks on all databases that answer, and a table of what was measured."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests import services
from tests.benchmarks import lab

SCRIPTS = ("throughput", "latency", "fairness", "memory", "many", "scale", "work")


def run() -> int:
    """0 if every target is met."""
    import django

    directory = Path(__file__).resolve().parent
    figures = [
        figure
        for script in SCRIPTS
        for kind in services.DATABASES
        for figure in lab.figures_of(directory / f"{script}.py", kind)
    ]
    print(f"Python {platform.python_version()}, Django {django.__version__}\n")
    print(lab.table(figures))
    return int(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    sys.exit(run())
