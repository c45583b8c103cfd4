"""What the page of one set shows below its bar. Each panel costs a query, however long the set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db.models import QuerySet
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..conf import current
from ..models import ErrorGroupRecord, SubtaskRecord, TaskSetRecord
from ..statuses import SubtaskStatus
from . import words
from .links import Link, Links
from .live import LiveSet, is_deserted
from .subtaskoperations import SUBTASK_OPERATIONS
from .values import as_text
from .waiting import Outstanding, waiting_for

SHOWN: Final = 10
GROUPS_SHOWN: Final = 20
# So many failures are sorted by time; of more the last ones by position are shown.
SORTED: Final = 1_000
COUNTS: Final[tuple[tuple[str, Any, dict[str, str]], ...]] = (
    ("total", gettext_lazy("Total"), {}),
    ("remaining", gettext_lazy("Remaining"), {"status": "unfinished"}),
    ("successful", gettext_lazy("Successful"), {"status": "successful"}),
    ("failed", gettext_lazy("Failed"), {"status": "failed"}),
    ("revoked", gettext_lazy("Revoked"), {"status": "revoked"}),
)


@dataclass(frozen=True, slots=True)
class Count:
    """A number of members, and where they are listed."""

    name: str
    label: Any
    value: str
    url: str


@dataclass(frozen=True, slots=True)
class Row:
    """A subtask in a panel."""

    record: SubtaskRecord
    link: Link
    retry_url: str = ""

    @property
    def status(self) -> words.Shown:
        """As it is shown."""
        return words.subtask_status(self.record.status)

    @property
    def role(self) -> str:
        """What it is to the set."""
        return words.role(self.record.role)

    @property
    def finished(self) -> str:
        """When it finished."""
        return words.moment(self.record.finished_at)


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Failures of one kind."""

    record: ErrorGroupRecord
    count: Link
    latest: Link

    @property
    def first_seen(self) -> str:
        """When the first of them was recorded."""
        return words.moment(self.record.first_seen_at)

    @property
    def last_seen(self) -> str:
        """When the latest of them was recorded."""
        return words.moment(self.record.last_seen_at)


class SetPage:
    """The panels of one set's page, for one user."""

    def __init__(self, record: TaskSetRecord, links: Links) -> None:
        self.record = record
        self.live = LiveSet(record)
        self._links = links

    @cached_property
    def sees_subtasks(self) -> bool:
        """Without that permission only the set itself is shown."""
        return self._links.admin_of(SubtaskRecord) is not None

    @property
    def is_deserted(self) -> bool:
        """The set would go on if a worker were alive."""
        return self.live.is_live and is_deserted()

    @cached_property
    def counts(self) -> list[Count]:
        """All counts, each with the list that it is the length of."""
        return [
            Count(name, label, self.live.fields[name], self._members(**chosen))
            for name, label, chosen in COUNTS
        ]

    @cached_property
    def callbacks(self) -> list[Row]:
        """Those of all generations, newest first; one that failed may be retried by itself."""
        rows = self._subtasks().filter(position__lt=0).order_by("-generation", "-position")
        return [Row(row, self._link(row), self._retry_url(row)) for row in rows[:SHOWN]]

    @property
    def is_live(self) -> bool:
        """Whether anything on the page will change by itself."""
        return self.live.is_live or any(not row.record.is_finished for row in self.callbacks)

    @cached_property
    def waiting(self) -> list[Outstanding]:
        """Some of what it waits for, with the reasons."""
        if not self.live.is_live or not self.sees_subtasks:
            return []
        return waiting_for(self.record, self._link, self._links)

    @property
    def more_waiting(self) -> Link | None:
        """The rest of it."""
        return self._more(self.record.remaining, len(self.waiting), status="unfinished")

    @cached_property
    def errors(self) -> list[ErrorGroup]:
        """The kinds of errors, the most frequent first."""
        groups = ErrorGroupRecord.objects.using(current().DATABASE)
        found = groups.filter(taskset_id=self.record.pk).order_by("-count", "pk")[:GROUPS_SHOWN]
        return [self._error_group(group) for group in found]

    @cached_property
    def failures(self) -> list[Row]:
        """Some failed members: the latest, or of very many the last ones."""
        if not self.record.failed or not self.sees_subtasks:
            return []
        failed = self._subtasks().filter(position__gte=0, status=SubtaskStatus.FAILED)
        by_time = self.record.failed <= SORTED
        order = ("-finished_at", "-position") if by_time else ("-position",)
        return [Row(row, self._link(row)) for row in failed.order_by(*order)[:SHOWN]]

    @property
    def more_failures(self) -> Link | None:
        """The rest of them."""
        return self._more(self.record.failed, len(self.failures), status="failed")

    # About the set

    @cached_property
    def metadata(self) -> str:
        """As it was given, or nothing."""
        return "" if self.record.metadata == "null" else as_text(self.record.metadata)

    @property
    def owner(self) -> Link | None:
        """The user who applied it."""
        if self.record.owner_id is None:
            return None
        text = str(self.record.owner or self.record.owner_id)
        return Link(text, self._links.page_of(get_user_model(), self.record.owner_id))

    @cached_property
    def related(self) -> Link | None:
        """What it was applied for. More than its key is told to those who may look at it."""
        record = self.record
        if record.related_type_id is None or record.related_id is None:
            return None
        try:
            model = ContentType.objects.get_for_id(record.related_type_id).model_class()
        except ContentType.DoesNotExist:
            model = None
        if model is None:
            return Link(record.related_id)
        text = f"{model._meta.verbose_name} {record.related_id}"
        model_admin = self._links.admin_of(model)
        if model_admin is None:
            return Link(text)
        found = model_admin.get_object(self._links.request, record.related_id)
        if found is None:
            return Link(_("%(what)s (gone)") % {"what": text})
        return Link(str(found), self._links.page_of(model, record.related_id))

    @cached_property
    def origin(self) -> Link | None:
        """The set of which it is a rerun."""
        key = self.record.origin_id
        return None if key is None else Link(str(key), self._links.page_of(TaskSetRecord, key))

    @cached_property
    def reruns(self) -> list[Link]:
        """Its own reruns, newest first."""
        sets = TaskSetRecord.objects.using(current().DATABASE)
        found = sets.filter(origin_id=self.record.pk).order_by("-enqueued_at")
        return [
            Link(str(key), self._links.page_of(TaskSetRecord, key))
            for key in found.values_list("pk", flat=True)[:SHOWN]
        ]

    # Pieces

    def _subtasks(self) -> QuerySet[SubtaskRecord]:
        rows = SubtaskRecord.objects.using(current().DATABASE).filter(taskset_id=self.record.pk)
        return rows.defer("args", "kwargs", "options", "links", "return_value", "errors")

    def _members(self, **chosen: object) -> str:
        return self._links.list_of(SubtaskRecord, taskset=self.record.pk, **chosen)

    def _link(self, row: SubtaskRecord) -> Link:
        text = row.task_name if row.position is None or row.position < 0 else f"#{row.position}"
        return Link(text, self._links.page_of(SubtaskRecord, row.pk))

    def _retry_url(self, row: SubtaskRecord) -> str:
        operation = SUBTASK_OPERATIONS["retry"]
        if not operation.can(row):
            return ""
        return self._links.button(SubtaskRecord, operation, row.pk)

    def _more(self, count: int, shown: int, **chosen: object) -> Link | None:
        if count <= shown:
            return None
        return Link(_("All %(count)s") % {"count": words.number(count)}, self._members(**chosen))

    def _error_group(self, group: ErrorGroupRecord) -> ErrorGroup:
        url = self._members(status="failed", error=group.fingerprint)
        latest = self._links.page_of(SubtaskRecord, group.latest_subtask_id)
        return ErrorGroup(
            group,
            Link(words.number(group.count), url),
            Link(words.short_id(group.latest_subtask_id), latest),
        )
