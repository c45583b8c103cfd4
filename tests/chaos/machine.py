"""How busy the machine is: limits of time are meant for one that has time."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PRESSURE: Final = Path("/proc/pressure/cpu")


def stalled() -> float:
    """For how many seconds since its start the machine had somebody wait for a processor. What
    that grew by while something was measured may be due to others, and is allowed for; where
    nothing waited nothing is."""
    if not PRESSURE.exists():
        return 0.0
    some, *_ = PRESSURE.read_text().splitlines()
    return int(some.rpartition("=")[2]) / 1e6
