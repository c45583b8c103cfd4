"""How a set stands, in the words of the page: made for the page, and again each time it asks."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.utils.cache import get_conditional_response
from django.utils.functional import cached_property
from django.utils.translation import get_language, ngettext
from django.utils.translation import gettext as _

from ..conf import current
from ..models import SubtaskRecord, TaskSetRecord, WorkerRecord
from ..progress import COLUMNS as PROGRESS_COLUMNS
from ..progress import Progress, progress_of
from ..statuses import FINISHED, TaskSetStatus
from ..store.moments import from_now
from . import words
from .setoperations import SET_OPERATIONS

# The columns by which an answer differs from the one before.
COLUMNS: Final = ("id", "generation", "enqueued_at", *PROGRESS_COLUMNS)
# From what age of a set on its page asks how often, in seconds and milliseconds.
INTERVALS: Final = ((3600, 10_000), (600, 5_000), (60, 2_000), (0, 1_000))
STANDSTILL: Final = 5_000


@dataclass(frozen=True)
class LiveSet:
    """One set's row as the page shows it."""

    record: TaskSetRecord

    @cached_property
    def progress(self) -> Progress:
        """All counts of one moment."""
        return progress_of(self.record)

    @cached_property
    def status(self) -> words.Shown:
        """The status as it is shown."""
        return words.set_status(self.record)

    @property
    def is_live(self) -> bool:
        """Whether more will come."""
        return self.record.status == TaskSetStatus.RUNNING

    @property
    def bar_max(self) -> str:
        """For <progress max>, which takes no grouped digits and no 0."""
        return str(self.progress.total or 1)

    @property
    def bar_value(self) -> str:
        """For <progress value>; a finished set without members is all done."""
        if self.progress.is_finished:
            return self.bar_max
        return str(self.progress.finished)

    @cached_property
    def fields(self) -> dict[str, str]:
        """Every text that may change while the page is shown, by the name of its place."""
        progress = self.progress
        numbers = {
            name: words.number(getattr(progress, name))
            for name in ("total", "remaining", "successful", "failed", "revoked", "finished")
        }
        saved = progress.status == TaskSetStatus.SAVED
        return numbers | {
            "percent": words.percent(progress.percent),
            "count": _("%(finished)s of %(total)s") % numbers,
            "summary": self.summary(),
            "duration": words.took(
                None if saved else self.record.enqueued_at, self.record.finished_at
            ),
            "rate": self.rate(),
            "eta": words.NONE if progress.eta is None else words.span(progress.eta),
        }

    def summary(self) -> str:
        """The bar, for those who do not see it."""
        progress = self.progress
        text = _("%(percent)s – %(finished)s of %(total)s") % {
            "percent": words.percent(progress.percent),
            "finished": words.number(progress.finished),
            "total": words.number(progress.total),
        }
        if not progress.failed:
            return text
        failed = ngettext("%(count)s failed", "%(count)s failed", progress.failed)
        return f"{text}, {failed % {'count': words.number(progress.failed)}}"

    def rate(self) -> str:
        """Members per second, or per minute where that is the better number."""
        rate = self.progress.rate
        if not rate:
            return words.NONE
        if rate >= 1:
            return _("%(count)s per second") % {"count": words.number(round(rate))}
        return _("%(count)s per minute") % {"count": words.number(max(1, round(rate * 60)))}

    @property
    def poll(self) -> int:
        """After how many milliseconds to ask again: sets that run for hours need no hurry."""
        if self.record.paused_at is not None or self.record.is_open:
            return STANDSTILL
        age = (timezone.now() - self.record.enqueued_at).total_seconds()
        return next((pause for seconds, pause in INTERVALS if age >= seconds), STANDSTILL)

    def as_json(self) -> dict[str, Any]:
        """What the script puts in its places."""
        return {
            "status": self.status.as_json(),
            "live": self.is_live,
            "value": int(self.bar_value),
            "max": int(self.bar_max),
            "fields": self.fields,
            "can": {name: one.can(self.record) for name, one in SET_OPERATIONS.items()},
        }


def answer(
    request: HttpRequest, sets: QuerySet[TaskSetRecord], callbacks: QuerySet[SubtaskRecord]
) -> HttpResponse:
    """How the sets stand, and the callbacks, as JSON; 304 if the page knows all of it already."""
    records = list(sets.only(*COLUMNS).order_by("pk"))
    # Sorted here: asked for in the order of keys, SQLite would go through all subtasks by key.
    subtasks = list(callbacks.only("id", "status", "role", "taskset_id").order_by())
    subtasks.sort(key=lambda row: row.pk)
    stands_still = is_deserted() and any(row.status == TaskSetStatus.RUNNING for row in records)
    etag = _etag(request, records, subtasks, stands_still)
    response = get_conditional_response(request, etag=etag) or JsonResponse(
        _payload(records, subtasks) | {"deserted": stands_still}
    )
    # Kept by the browser, and asked about each time. For this user, in this language.
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-cache"
    return response


def is_deserted() -> bool:
    """No worker is alive, so nothing goes on."""
    workers = WorkerRecord.objects.using(current().DATABASE).filter(lost_at=None)
    return not workers.filter(heartbeat_at__gte=from_now(-current().LEASE)).exists()


def _payload(
    records: Iterable[TaskSetRecord], callbacks: Iterable[SubtaskRecord]
) -> dict[str, Any]:
    live = [LiveSet(record) for record in records]
    pauses = [one.poll for one in live if one.is_live]
    shown = {str(row.pk): words.subtask_status(row.status).as_json() for row in callbacks}
    if any(row.status not in FINISHED for row in callbacks):
        pauses.append(INTERVALS[-1][1])
    return {
        "sets": {str(one.record.pk): one.as_json() for one in live},
        "subtasks": shown,
        # None: nothing of it will change by itself any more.
        "poll": min(pauses, default=None),
    }


def _etag(
    request: HttpRequest,
    records: Iterable[TaskSetRecord],
    callbacks: Iterable[SubtaskRecord],
    *others: object,
) -> str:
    known: list[object] = [get_language(), timezone.get_current_timezone_name(), request.user.pk]
    known += others
    known += [getattr(record, column) for record in records for column in COLUMNS]
    known += [value for row in callbacks for value in (row.pk, row.status)]
    text = json.dumps(known, default=_plain)
    return f'"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}"'


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value)
