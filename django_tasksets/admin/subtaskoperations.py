"""What can be done to subtasks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from .. import control, steering
from ..models import SubtaskRecord
from ..statuses import FINISHED, Role, SubtaskStatus
from .operations import REVOKING, Given, Operation, counted, sentence, skipped_subtasks


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtaskOperation(Operation):
    """Something that can be done to subtasks, many at once; says how many it was done to."""

    run: Callable[[Sequence[uuid.UUID], Given], int]


def told_of_subtasks(operation: SubtaskOperation, chosen: int, done: int) -> str:
    """What came of it, in numbers."""
    if not done:
        return str(operation.nothing)
    parts = [counted(operation.done, done)]
    if chosen > done:
        parts.append(skipped_subtasks(chosen - done))
    return sentence(parts)


def _can_retry(record: SubtaskRecord) -> bool:
    if record.role != Role.MEMBER and record.started_at is None:
        return False  # a callback that was not needed
    return record.status in (SubtaskStatus.FAILED, SubtaskStatus.REVOKED)


SUBTASK_OPERATIONS: Final = {
    operation.name: operation
    for operation in (
        SubtaskOperation(
            name="retry",
            permission="retry",
            label=_("Retry"),
            selected=_("Retry selected subtasks"),
            done=ngettext_lazy("%(count)s subtask retried", "%(count)s subtasks retried", "n"),
            nothing=_("Nothing was retried: only what has failed or been revoked can be."),
            can=_can_retry,
            run=lambda ids, _given: steering.retry_subtasks(ids),
        ),
        SubtaskOperation(
            name="revoke",
            permission="revoke",
            label=_("Revoke…"),
            selected=_("Revoke selected subtasks…"),
            done=ngettext_lazy("%(count)s subtask revoked", "%(count)s subtasks revoked", "n"),
            nothing=_("Nothing was revoked: only what is unfinished can be."),
            question=REVOKING,
            can=lambda record: record.status not in FINISHED,
            run=lambda ids, given: control.revoke_subtasks(
                ids, terminate=bool(given.get("terminate")), reason=str(given["reason"])
            ),
        ),
    )
}
