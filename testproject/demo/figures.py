"""Figures that people can read: in English as all of the demo, whatever the browser asks for."""

from __future__ import annotations


def thousands(number: int) -> str:
    """1234567 as 1,234,567."""
    return f"{number:,}"


def size(number: float) -> str:
    """A number of bytes in the unit that suits it."""
    if number < 1024:
        return f"{number:,.0f} bytes"
    for unit in ("KB", "MB"):
        number /= 1024
        if number < 1024:
            return f"{number:,.1f} {unit}"
    return f"{number / 1024:,.1f} GB"
