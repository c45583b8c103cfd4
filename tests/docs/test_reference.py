"""The reference names all there is, and nothing else."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import BaseCommand, CommandError, load_command_class
from django.core.management.base import CommandParser
from django.dispatch import Signal

import django_tasksets
from django_tasksets import exceptions, signals
from django_tasksets.calls import IGNORED_OPTIONS
from django_tasksets.conf import Settings
from tests.docs.pages import PAGES, Page

PACKAGE = Path(django_tasksets.__file__).parent
COMMANDS = sorted(path.stem for path in PACKAGE.glob("management/commands/[a-z]*.py"))
SPAN = re.compile(r"`([^`\n]+)`")
# What stands for a value that the reader has to put in.
PLACEHOLDERS = {
    "ID": "01890a5d-ac96-774b-bcce-b302099a8057",
    "SECONDS": "5",
    "HOST": "web-1",
    "PATH": "alive",
}


def reference(name: str) -> Page:
    return Page(f"docs/reference/{name}.md")


def rows(page: Page) -> list[list[str]]:
    """The cells of the tables whose first column is code."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.text.splitlines()
        if line.startswith("| `")
    ]


def sections(page: Page) -> dict[str, str]:
    """What is below each heading of the second level."""
    parts = re.split(r"^## `?([^`\n]+)`?$", page.text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(directive: str) -> set[str]:
    """The dotted names that the reference has Sphinx look up."""
    found = {
        name
        for page in PAGES
        for name in re.findall(rf"^\.\. {directive}:: ([\w.]+)", page.text, re.MULTILINE)
    }
    assert found
    return found


def looked_up(path: str) -> Any:
    """The object at a dotted path: in a module, or in a class in one."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


# Settings


def default(text: str) -> Any:
    """A default as the page shows it."""
    if days := re.fullmatch(r"(\d+) days", text):
        return datetime.timedelta(days=int(days[1]))
    return eval(text.strip("`"), {})


def test_every_setting_is_documented_with_its_default() -> None:
    shown = {name.strip("`"): default(text) for name, text, *_ in rows(reference("settings"))}
    assert shown == {
        field.name: getattr(Settings(), field.name) for field in dataclasses.fields(Settings)
    }


def test_a_setting_is_called_reserved_as_long_as_nothing_reads_it() -> None:
    apart = {PACKAGE / "conf.py", PACKAGE / "checks.py"}
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py") if path not in apart)
    # Defaults of tasks are read as the tasks' attributes.
    read = {
        field.name
        for field in dataclasses.fields(Settings)
        if re.search(rf"\)\.{field.name}\b|settings\.{field.name}\b", source)
        or (
            f'_setting("{field.name}")' in source
            and re.search(rf"task\.(default_)?{field.name.lower()}\b", source)
        )
    }
    reserved = {
        row[0].strip("`") for row in rows(reference("settings")) if row[2].startswith("reserved")
    }
    assert reserved == {field.name for field in dataclasses.fields(Settings)} - read


# Names


def test_every_public_name_is_documented() -> None:
    shown = [looked_up(path) for path in documented(r"auto\w+")]
    missing = [
        name for name in django_tasksets.__all__ if getattr(django_tasksets, name) not in shown
    ]
    assert missing == []


def test_every_documented_name_is_there() -> None:
    for name in documented(r"auto\w+"):
        assert looked_up(name) is not None


def test_every_exception_is_documented() -> None:
    raised = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == exceptions.__name__
    }
    assert {name.rpartition(".")[2] for name in documented("autoexception")} == raised


def test_every_signal_is_documented() -> None:
    sent = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert documented("autodata") == {f"{signals.__name__}.{name}" for name in sent}


# Checks


def test_every_check_is_documented() -> None:
    ids = set(re.findall(r"[\".]([EW]\d{3})\"", (PACKAGE / "checks.py").read_text()))
    assert ids
    assert list(sections(reference("checks"))) == [f"tasksets.{name}" for name in sorted(ids)]


# Permissions


def test_every_permission_is_documented() -> None:
    shown = {row[0].strip("`") for row in rows(Page("docs/howto/admin.md"))}
    own = {
        f"tasksets.{codename}"
        for model in apps.get_app_config("tasksets").get_models()
        for codename, _ in model._meta.permissions
    }
    seen = {f"tasksets.view_{name}" for name in ("tasksetrecord", "subtaskrecord", "workerrecord")}
    assert shown == own | seen | {"tasksets.delete_tasksetrecord"}


# Options that mean nothing


def test_every_ignored_option_is_named() -> None:
    page = Page("docs/howto/celery.md").text
    listed = page.partition("accepted and have no effect")[2].partition("\n\n")[2]
    assert set(SPAN.findall(listed.partition("\n\n")[0])) == IGNORED_OPTIONS


# Commands


def parser(command: str) -> CommandParser:
    return load_command_class("django_tasksets", command).create_parser("manage.py", command)


def test_every_command_is_documented() -> None:
    assert sorted(sections(reference("commands"))) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_documented(command: str) -> None:
    text = sections(reference("commands"))[command]
    common = {action.dest for action in BaseCommand().create_parser("manage.py", "")._actions}
    own = [action for action in parser(command)._actions if action.dest not in common]
    options = {option for action in own for option in action.option_strings}
    words = {word for span in SPAN.findall(text) for word in span.split()}
    assert {word for word in words if word.startswith("--")} == options
    choices = {choice for action in own if action.choices for choice in action.choices}
    assert choices <= words


def lines() -> list[tuple[Page, str]]:
    """The command lines of this package that the documentation shows."""
    shown: list[tuple[Page, str]] = []
    for page in PAGES:
        typed = [
            line for block in page.blocks("console", "ini") for line in block.code.splitlines()
        ]
        for text in typed + SPAN.findall(page.prose):
            _, found, arguments = text.partition("manage.py ")
            words = shlex.split(arguments, comments=True) if found else []
            if words and words[0] in COMMANDS:
                shown.append((page, " ".join(words)))
    return shown


@pytest.mark.parametrize(("page", "line"), lines(), ids=str)
def test_command_lines_can_be_typed(page: Page, line: str) -> None:
    command, *arguments = [PLACEHOLDERS.get(word, word) for word in line.split()]
    try:
        parser(command).parse_args(arguments)
    except CommandError as error:
        pytest.fail(f"{page}: manage.py {line}: {error}", pytrace=False)
