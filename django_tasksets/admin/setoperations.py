"""What can be done to a task set."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, ngettext_lazy

from .. import control, steering
from ..conf import current
from ..models import ErrorGroupRecord, TaskSetRecord
from ..statuses import TaskSetStatus
from . import words
from .operations import REVOKING, Given, Operation, counted, sentence, skipped_subtasks


class Came(NamedTuple):
    """What came of an operation on one set."""

    done: bool
    subtasks: int = 0
    skipped: int = 0
    """Subtasks that it was about and that it left as they were."""
    new_set: uuid.UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOperation(Operation):
    """Something that can be done to a set."""

    run: Callable[[TaskSetRecord, Given], Came]
    subtasks_done: Any = None
    """Like `done`, of the subtasks that it reached."""


def told_of_sets(operation: SetOperation, came: Sequence[Came]) -> str:
    """What came of it, in numbers."""
    done = sum(one.done for one in came)
    if not done:
        return str(operation.nothing)
    subtasks, skipped = sum(one.subtasks for one in came), sum(one.skipped for one in came)
    reached = [counted(operation.subtasks_done, subtasks)] if subtasks else []
    # Of a single set the subtasks say it all.
    parts = reached if reached and len(came) == 1 else [counted(operation.done, done), *reached]
    if skipped:
        parts.append(skipped_subtasks(skipped))
    if left := len(came) - done:
        text = ngettext("%(count)s task set skipped", "%(count)s task sets skipped", left)
        parts.append(text % {"count": words.number(left)})
    return sentence(parts)


def _revoke(record: TaskSetRecord, given: Given) -> Came:
    if record.status != TaskSetStatus.RUNNING:
        return Came(done=False)
    terminate = bool(given.get("terminate"))
    count = control.revoke_set(record.pk, terminate=terminate, reason=str(given["reason"]))
    # It may have finished just before: then nothing has been marked.
    marked = TaskSetRecord.objects.using(current().DATABASE).filter(
        pk=record.pk, revoke_requested_at__isnull=False
    )
    return Came(done=marked.exists(), subtasks=count)


def _retry(record: TaskSetRecord, given: Given) -> Came:
    fingerprint = given.get("fingerprint") or None
    wanted = record.failed + record.revoked
    if fingerprint is not None:
        groups = ErrorGroupRecord.objects.using(current().DATABASE).filter(
            taskset_id=record.pk, fingerprint=fingerprint
        )
        wanted = groups.values_list("count", flat=True).first() or 0
    retried = steering.retry_failed_set(record.pk, fingerprint=fingerprint)
    return Came(done=retried > 0, subtasks=retried, skipped=max(0, wanted - retried))


def _rerun(record: TaskSetRecord, _given: Given) -> Came:
    return Came(done=True, new_set=steering.rerun_set(record.pk))


def _forget(record: TaskSetRecord, _given: Given) -> Came:
    control.forget_set(record.pk)
    return Came(done=True)


def _delete(record: TaskSetRecord, _given: Given) -> Came:
    control.delete_set(record.pk)
    return Came(done=True)


def _is_running(record: TaskSetRecord) -> bool:
    return record.status == TaskSetStatus.RUNNING


def _is_finished(record: TaskSetRecord) -> bool:
    return record.is_finished


def _can_pause(record: TaskSetRecord) -> bool:
    return _is_running(record) and record.paused_at is None and record.revoke_requested_at is None


SET_OPERATIONS: Final = {
    operation.name: operation
    for operation in (
        SetOperation(
            name="pause",
            permission="pause",
            label=_("Pause"),
            selected=_("Pause selected task sets"),
            done=ngettext_lazy("%(count)s task set paused", "%(count)s task sets paused", "n"),
            nothing=_("Nothing was paused: only what runs, and is not paused yet, can be."),
            can=_can_pause,
            run=lambda record, _given: Came(done=steering.pause_set(record.pk)),
        ),
        SetOperation(
            name="resume",
            permission="pause",
            label=_("Resume"),
            selected=_("Resume selected task sets"),
            done=ngettext_lazy("%(count)s task set resumed", "%(count)s task sets resumed", "n"),
            nothing=_("Nothing was resumed: only what is paused can be."),
            can=lambda record: _is_running(record) and record.paused_at is not None,
            run=lambda record, _given: Came(done=steering.resume_set(record.pk)),
        ),
        SetOperation(
            name="retry",
            permission="retry",
            label=_("Retry failed and revoked"),
            selected=_("Retry what failed or was revoked in selected task sets"),
            done=ngettext_lazy("%(count)s task set retried", "%(count)s task sets retried", "n"),
            subtasks_done=ngettext_lazy(
                "%(count)s subtask retried", "%(count)s subtasks retried", "n"
            ),
            nothing=_("Nothing was retried: no subtask of it has failed or been revoked."),
            can=lambda record: record.failed + record.revoked > 0,
            run=_retry,
        ),
        SetOperation(
            name="rerun",
            permission="rerun",
            label=_("Run again"),
            selected=_("Run selected task sets again"),
            done=ngettext_lazy(
                "%(count)s task set run again", "%(count)s task sets run again", "n"
            ),
            nothing=_("Nothing was run again."),
            can=lambda record: record.status != TaskSetStatus.SAVED,
            run=_rerun,
        ),
        SetOperation(
            name="revoke",
            permission="revoke",
            label=_("Revoke…"),
            selected=_("Revoke selected task sets…"),
            done=ngettext_lazy("%(count)s task set revoked", "%(count)s task sets revoked", "n"),
            subtasks_done=ngettext_lazy(
                "%(count)s subtask revoked", "%(count)s subtasks revoked", "n"
            ),
            nothing=_("Nothing was revoked: only what runs can be."),
            question=REVOKING,
            can=_is_running,
            run=_revoke,
        ),
        SetOperation(
            name="forget",
            permission="purge",
            label=_("Forget results…"),
            selected=_("Forget the results of selected task sets…"),
            done=ngettext_lazy(
                "%(count)s task set’s results forgotten",
                "%(count)s task sets’ results forgotten",
                "n",
            ),
            nothing=_("Nothing was forgotten."),
            question=_(
                "Return values and tracebacks of its subtasks are deleted, for good. Arguments, "
                "messages of errors and counts stay."
            ),
            can=_is_finished,
            run=_forget,
        ),
        SetOperation(
            name="delete",
            # Not "delete", which is what Django's own pages ask for.
            permission="purge",
            label=_("Delete…"),
            selected=_("Delete selected task sets…"),
            done=ngettext_lazy("%(count)s task set deleted", "%(count)s task sets deleted", "n"),
            nothing=_("Nothing was deleted."),
            question=_("All subtasks, results and errors are deleted with it. For good."),
            can=lambda record: not _is_running(record),
            run=_delete,
        ),
    )
}
