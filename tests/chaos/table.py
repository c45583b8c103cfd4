"""The table of all experiments, from the reports of the runs that made them.

Standard library only: `python3 tests` prints it.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

KEPT: Final = Path(__file__).with_name(".figures.json")
"""The newest figures of each database, so that one may be run after the other."""


def keep(report: Path, database: str) -> None:
    """Take the figures of one run, in pytest's report, in place of those of the run before it."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    cells = kept.setdefault(database, {})
    for case in ET.parse(report).getroot().iter("testcase"):
        found = {one.attrib["name"]: one.attrib["value"] for one in case.iter("property")}
        if title := found.get("experiment"):
            cells[title] = [case.attrib["classname"], _cell(case, found)]
    KEPT.write_text(json.dumps(kept, indent=1))


def _cell(case: ET.Element, found: dict[str, str]) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "FAILED"
    skipped = case.find("skipped")
    reason = "" if skipped is None else skipped.attrib.get("message", "")
    if "figures" not in found:
        return f"not run: {reason}" if reason else "passed"
    return f"{found['figures']}; {reason}" if reason else found["figures"]


def table() -> str:
    """A row for each experiment and database, in Markdown."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    files = {title: file for cells in kept.values() for title, (file, _) in cells.items()}
    lines = ["| experiment | on | what came of it |", "|---|---|---|"]
    for title in sorted(files, key=lambda title: (files[title], title)):
        rows = [(database, cells[title][1]) for database, cells in kept.items() if title in cells]
        for number, (database, figures) in enumerate(rows):
            lines.append(f"| {'' if number else title} | {database} | {figures} |")
    return "\n".join(lines)
