"""How things are put: statuses with their icons, numbers, moments, spans of time."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import TextChoices
from django.template.loader import render_to_string
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..conf import current
from ..models import TaskSetRecord, WorkerRecord
from ..statuses import Role, SubtaskStatus, TaskSetStatus

NONE: Final = "–"
# Characters that no font turns into colourful pictures.
ICONS: Final = {
    "saved": "○",
    "waiting": "○",
    "ready": "◔",
    "scheduled": "◷",
    "running": "◑",
    "open": "◌",
    "paused": "‖",
    "revoking": "⊘",
    "successful": "✓",
    "failed": "✗",
    "revoked": "⊘",
    "alive": "●",
    "late": "◐",
    "lost": "✗",
}
# What is shown of a word that no code of ours writes.
UNKNOWN: Final = "?"
LABELS: Final = {
    "open": gettext_lazy("Open"),
    "paused": gettext_lazy("Paused"),
    "revoking": gettext_lazy("Being revoked"),
    "alive": gettext_lazy("Alive"),
    "late": gettext_lazy("Late"),
    "lost": gettext_lazy("Lost"),
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A status as it is shown: a word and an icon, never a colour alone."""

    key: str
    label: str

    @property
    def icon(self) -> str:
        """One character."""
        return ICONS.get(self.key, UNKNOWN)

    def __html__(self) -> SafeString:
        return render_to_string("admin/tasksets/status.html", {"status": self})

    def as_json(self) -> dict[str, str]:
        """For the script that keeps the page up to date."""
        return {"key": self.key, "label": self.label, "icon": self.icon}


def _stated(key: str) -> Shown:
    return Shown(key, str(LABELS[key]))


def set_status(record: TaskSetRecord) -> Shown:
    """A set's status; of one that runs, what keeps it from finishing."""
    if record.status == TaskSetStatus.RUNNING:
        if record.revoke_requested_at is not None:
            return _stated("revoking")
        if record.paused_at is not None:
            return _stated("paused")
        if record.sealed_at is None:
            return _stated("open")
    return _known(TaskSetStatus, record.status)


def subtask_status(status: str) -> Shown:
    """A subtask's status."""
    return _known(SubtaskStatus, status)


def role(stored: str) -> str:
    """What a subtask is to its set."""
    return _known(Role, stored).label


def _known(words: type[TextChoices], stored: str) -> Shown:
    """The word as it is shown; one that somebody else has written, as it is stored."""
    return Shown(stored.lower(), str(words(stored).label if stored in words.values else stored))


def worker_status(worker: WorkerRecord, now: datetime.datetime) -> Shown:
    """How a worker is doing: late once it has missed a heartbeat, lost once its lease is over."""
    lease = datetime.timedelta(seconds=current().LEASE)
    silence = now - worker.heartbeat_at
    if worker.lost_at is not None:
        return _stated("lost")
    if silence > lease:
        return _stated("lost")
    # Heartbeats come four times in a lease.
    return _stated("late" if silence > lease / 2 else "alive")


def number(value: int) -> str:
    """A whole number, grouped as the language does it, whatever USE_THOUSAND_SEPARATOR says."""
    return formats.number_format(value, use_l10n=True, force_grouping=True)


def moment(value: datetime.datetime | None) -> SafeString | str:
    """A moment to the second, in the current time zone, and for machines."""
    if value is None:
        return NONE
    local = timezone.localtime(value)
    return format_html(
        '<time datetime="{}">{}</time>',
        local.isoformat(timespec="seconds"),
        local.strftime("%Y-%m-%d %H:%M:%S"),
    )


def span(value: datetime.timedelta | None) -> str:
    """How long: the two largest units that matter."""
    if value is None:
        return NONE
    seconds = max(0.0, value.total_seconds())
    if seconds < 1:
        return _("%(count)s ms") % {"count": round(seconds * 1000)}
    if seconds < 60:
        return _("%(count)s s") % {"count": formats.number_format(round(seconds, 1))}
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if hours < 1:
        return _("%(m)s min %(s)s s") % {"m": minutes, "s": int(seconds) % 60}
    if days < 1:
        return _("%(h)s h %(m)s min") % {"h": hours, "m": minutes % 60}
    return _("%(d)s d %(h)s h") % {"d": number(days), "h": hours % 24}


def percent(value: float) -> str:
    """A percentage, with a fraction only if it has one."""
    short = int(value) if value == int(value) else round(value, 2)
    return _("%(count)s%%") % {"count": formats.number_format(short)}


def short_id(key: Any) -> str:
    """The end of an id, which differs: its beginning is the time of its making."""
    return str(key)[-12:]


def took(start: datetime.datetime | None, end: datetime.datetime | None) -> str:
    """How long something took, or has taken so far."""
    return NONE if start is None else span((end or timezone.now()) - start)
