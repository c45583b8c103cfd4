"""The documentation as the tests see it: pages, their blocks of code, and a way to run these."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from django_tasksets.testing import run_subtasks

ROOT = Path(__file__).resolve().parent.parent.parent
_FENCE = re.compile(r"^(```+)([\w{}-]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
_NOTHING = object()


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    """That of its first line of code, from 1."""
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def tree(self) -> ast.Module:
        """The code, with the line numbers of the page."""
        return ast.increment_lineno(ast.parse(self.code), self.line - 1)

    def run(self, names: dict[str, Any]) -> None:
        """Execute it. An expression with a literal as its comment has that value."""
        expected = self._expected()
        for statement in self.tree().body:
            if isinstance(statement, ast.Expr):
                expression = ast.Expression(statement.value)
                value = eval(compile(expression, str(ROOT / self.page), "eval"), names)
                wanted = expected.get(statement.end_lineno, _NOTHING)
                assert wanted is _NOTHING or value == wanted, (
                    f"{self.page}:{statement.lineno}: it is {value!r}"
                )
            else:
                module = ast.Module([statement], type_ignores=[])
                exec(compile(module, str(ROOT / self.page), "exec"), names)

    def _expected(self) -> dict[int | None, Any]:
        """By the page's lines, the comments that are literals."""
        found: dict[int | None, Any] = {}
        for token in tokenize.generate_tokens(io.StringIO(self.code).readline):
            if token.type == tokenize.COMMENT:
                try:
                    literal = ast.literal_eval(token.string.lstrip("# "))
                except (SyntaxError, ValueError):
                    continue
                found[token.start[0] + self.line - 1] = literal
        return found


@dataclass(frozen=True)
class Page:
    """A file in Markdown, by its path in the project."""

    path: str

    def __str__(self) -> str:
        return self.path

    @property
    def module(self) -> str:
        """What it is as a module, for tasks to be named after."""
        return re.sub(r"\W", "_", self.path.removesuffix(".md"))

    @property
    def text(self) -> str:
        """All of it."""
        return (ROOT / self.path).read_text()

    @property
    def prose(self) -> str:
        """All but its blocks of code."""
        return _FENCE.sub("", self.text)

    def blocks(self, *languages: str) -> Iterator[Block]:
        """Its blocks of code in these languages."""
        text = self.text
        for found in _FENCE.finditer(text):
            if found[2] in languages:
                line = text.count("\n", 0, found.start(3)) + 1
                yield Block(self.path, line, found[2], found[3])

    def run(self, names: dict[str, Any]) -> None:
        """Execute its Python as one module; after each block a worker does what is to be done."""
        module = ModuleType(self.module)
        vars(module).update(names)
        sys.modules[module.__name__] = module
        for block in self.blocks("python"):
            block.run(vars(module))
            run_subtasks(scheduled=True)
        names.update(vars(module))


PAGES = [
    Page(str(path.relative_to(ROOT)))
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "_build" not in path.parts
]
