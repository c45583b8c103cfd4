"""What can be done to rows, and the words in which it is told.

The operations are in setoperations and subtaskoperations. Each calls one function of the flow,
which decides; nothing in the admin writes a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from . import words

REVOKING = _(
    "Subtasks that have not begun are revoked now. Those that execute are asked to stop, and "
    "counted as what they end as."
)
"""The question before anything is revoked."""

Given = Mapping[str, Any]
"""What came with the request: `reason`, `terminate`, `fingerprint`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Something that can be done to rows, with its words."""

    name: str
    permission: str
    """The admin's `has_…_permission` that it takes."""
    label: Any
    """On its button."""
    selected: Any
    """In the list of actions."""
    done: Any
    """A lazy plural with `%(count)s`, chosen by `n`."""
    nothing: Any
    """Why it was not done."""
    question: Any = ""
    """Asked on a page of its own before it is done; empty for what can be taken back."""
    can: Callable[[Any], bool]
    """Whether it would do anything, as far as the row tells. The flow asks again."""

    @property
    def takes_reason(self) -> bool:
        """Whether a reason is asked for, and how hard to stop what executes."""
        return self.name == "revoke"


def counted(text: Any, count: int) -> str:
    """One of the lazy plurals with its number in it."""
    return str(text % {"n": count, "count": words.number(count)})


def sentence(parts: Sequence[str]) -> str:
    """As in `412 subtasks retried, 3 subtasks skipped.`."""
    return ", ".join(parts) + "."


def skipped_subtasks(count: int) -> str:
    """So many were left as they were."""
    text = ngettext("%(count)s subtask skipped", "%(count)s subtasks skipped", count)
    return text % {"count": words.number(count)}
