"""What is learnt about one file, and which files there are."""

from __future__ import annotations

import ast
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import django

NOT_SOURCE = {"__pycache__", "node_modules"}
LARGEST_TO_READ = 32 * 1024 * 1024
# Python 3.11 counts how deep it is in a tree for all threads together (gh-106905).
ONE_TREE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class FileSurvey:
    """One file, as `survey` saw it. Stored as it is: a task may return a dataclass."""

    path: str
    kind: str
    """Its suffix, in lower case."""
    size: int
    """In bytes."""
    lines: int = 0
    longest_line: int = 0
    """In characters."""
    functions: int = 0
    classes: int = 0


def installed_django() -> Path:
    """A source tree that is there wherever this runs, with thousands of files."""
    return Path(django.__file__).resolve().parent


def files_below(root: Path) -> Iterator[Path]:
    """Every file of the tree in a steady order, but for hidden ones and what tools have made."""
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = sorted(
            name for name in subdirectories if name[0] != "." and name not in NOT_SOURCE
        )
        for name in sorted(names):
            path = Path(directory, name)
            if name[0] != "." and path.is_file() and not path.is_symlink() and _is_text(str(path)):
                yield path


def survey(path: Path) -> FileSurvey:
    """Read one file and count."""
    size = path.stat().st_size
    kind = path.suffix.lower() or "no suffix"
    content = path.read_bytes() if size <= LARGEST_TO_READ else b"\0"
    if b"\0" in content:  # Not text: it has a size, but no lines.
        return FileSurvey(str(path), kind, size)
    lines = content.splitlines()
    functions, classes = _definitions(content) if kind in {".py", ".pyi"} else (0, 0)
    return FileSurvey(
        path=str(path),
        kind=kind,
        size=size,
        lines=len(lines),
        longest_line=max((len(line.decode(errors="replace")) for line in lines), default=0),
        functions=functions,
        classes=classes,
    )


def _definitions(source: bytes) -> tuple[int, int]:
    """How many functions and classes; none where the source is for another Python."""
    try:
        with ONE_TREE_AT_A_TIME:
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return 0, 0
    nodes = list(ast.walk(tree))
    functions = sum(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in nodes)
    return functions, sum(isinstance(node, ast.ClassDef) for node in nodes)


def _is_text(path: str) -> bool:
    """Whether a path can be an argument: names that are not UTF-8 cannot be stored as JSON."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
