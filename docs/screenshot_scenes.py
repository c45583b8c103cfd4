"""What is in the database when the pictures are taken: sets in all states, workers, errors."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone

from demo.models import Census
from django_tasksets.ids import new_id
from django_tasksets.models import ErrorGroupRecord, SubtaskRecord, TaskSetRecord, WorkerRecord
from django_tasksets.statuses import Role, SubtaskStatus, TaskSetStatus, callback_position

PHOTOS = 1_204
DONE = 761
TIMEOUT = "requests.exceptions.ReadTimeout"
BROKEN = "PIL.UnidentifiedImageError"
TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/shop/photos/tasks.py", line 31, in resize
    with Image.open(photo.original) as image:
  File "/srv/venv/lib/python3.13/site-packages/PIL/Image.py", line 3498, in open
    raise UnidentifiedImageError(msg)
PIL.UnidentifiedImageError: {message}
"""


@dataclass(frozen=True)
class Shot:
    """A picture to take."""

    name: str
    path: str
    height: int = 900
    dark: bool = False
    open: str = ""
    """Something to click on first."""


def make_scenes() -> list[Shot]:
    """Fill the database; the pictures to take of it."""
    random.seed(17)
    now = timezone.now()
    user = get_user_model().objects.create_superuser("anna", "anna@example.com", "anna")
    workers = list(make_workers(now))
    photos = make_photos(now, user, workers)
    failed = SubtaskRecord.objects.filter(taskset=photos, status="FAILED").latest("position")
    make_other_sets(now, user)
    sets, subtasks = "/admin/tasksets/tasksetrecord/", "/admin/tasksets/subtaskrecord/"
    return [
        Shot("admin-sets", sets, dark=True),
        Shot("admin-set", f"{sets}{photos.pk}/change/", 1240, dark=True),
        Shot("admin-revoke", f"{sets}{photos.pk}/revoke/", 400),
        Shot("admin-subtasks", f"{subtasks}?taskset={photos.pk}&status=failed", 900),
        Shot("admin-subtask", f"{subtasks}{failed.pk}/change/", 1300),
        Shot("admin-workers", "/admin/tasksets/workerrecord/", 480),
    ]


def make_workers(now: datetime) -> Iterator[WorkerRecord]:
    """Four that live, one that is late, one that is lost."""
    for number, silence in enumerate((3, 9, 1, 12, 38, 400)):
        yield WorkerRecord.objects.create(
            host="worker-1" if number < 3 else "worker-2",
            pid=4_101 + number,
            queues="" if number < 4 else "mail,default",
            version="1.0",
            started_at=now - timedelta(hours=5, minutes=number),
            heartbeat_at=now - timedelta(seconds=silence),
            lost_at=now - timedelta(seconds=330) if silence > 60 else None,
        )


def make_photos(now: datetime, user: Any, workers: list[WorkerRecord]) -> TaskSetRecord:
    """The set whose page is shown: under way, with errors of two kinds and a retry."""
    begun = now - timedelta(minutes=2, seconds=41)
    census = Census.objects.create(path="/srv/shop/albums/17")
    statuses = [SubtaskStatus.SUCCESSFUL] * DONE
    for position in random.sample(range(DONE), 9):
        statuses[position] = SubtaskStatus.FAILED
    taskset = TaskSetRecord.objects.create(
        name="Resize 1,204 photos",
        total=PHOTOS,
        remaining=PHOTOS - DONE,
        successful=DONE - 9,
        failed=9,
        has_callbacks=True,
        max_failures_percent=5.0,
        enqueued_at=begun,
        started_at=begun + timedelta(seconds=0.2),
        sealed_at=begun,
        owner=user,
        related_type=ContentType.objects.get_for_model(Census),
        related_id=str(census.pk),
        metadata=json.dumps({"album": 17, "sizes": [320, 1280], "requested_from": "backoffice"}),
    )
    rows = [
        photo(taskset, position, status, begun, workers) for position, status in enumerate(statuses)
    ]
    rows += list(outstanding(taskset, now, begun, workers))
    rows += [callback(taskset, Role.ON_SUCCESS, "photos.tasks.publish_album")]
    rows += [callback(taskset, Role.ON_FAILURE, "photos.tasks.report_broken")]
    SubtaskRecord.objects.bulk_create(rows)
    make_errors(taskset, rows)
    return taskset


def photo(
    taskset: TaskSetRecord,
    position: int,
    status: str,
    begun: datetime,
    workers: list[WorkerRecord],
) -> SubtaskRecord:
    """A finished member."""
    started = begun + timedelta(seconds=position * 0.21)
    took = timedelta(milliseconds=random.randint(90, 900))
    failed = status == SubtaskStatus.FAILED
    kind = TIMEOUT if position % 3 == 0 else BROKEN
    message = (
        "HTTPSConnectionPool(host='cdn.example.com', port=443): Read timed out."
        if kind == TIMEOUT
        else f"cannot identify image file 'albums/17/IMG_{position:04}.jpg'"
    )
    worker = workers[position % 4]
    line = {
        "exception_class": kind,
        "message": message,
        "traceback": TRACEBACK.format(message=message),
        "fingerprint": kind[-12:],
        "args": None,
        "worker_id": str(worker.pk),
        "attempt": 1,
        "at": (started + took).isoformat(),
    }
    return SubtaskRecord(
        taskset=taskset,
        position=position,
        task_name="photos.tasks.resize",
        args=json.dumps([40_000 + position]),
        kwargs='{"sizes":{"$":"tuple","value":[320,1280]}}',
        status=status,
        queue_name="default",
        enqueued_at=taskset.enqueued_at,
        claimed_at=started,
        started_at=started,
        finished_at=started + took,
        attempts=1,
        claims=1,
        worker_id=worker.pk,
        reason=f"{kind}: {message}"[:200] if failed else "",
        return_value=None if failed else "2",
        errors=json.dumps(line) + "\n" if failed else "",
        error_fingerprint=kind[-12:] if failed else "",
        revoke_flag=0,
        retries=0,
        crashes=0,
    )


def outstanding(
    taskset: TaskSetRecord, now: datetime, begun: datetime, workers: list[WorkerRecord]
) -> Iterator[SubtaskRecord]:
    """Members that execute, one that waits for its retry, and the rest that is queued."""
    for offset, position in enumerate(range(DONE, PHOTOS)):
        row = SubtaskRecord(
            taskset=taskset,
            position=position,
            task_name="photos.tasks.resize",
            args=json.dumps([40_000 + position]),
            enqueued_at=begun,
            reason="",
            revoke_flag=0,
            claims=0,
            attempts=0,
            retries=0,
            crashes=0,
            errors="",
            error_fingerprint="",
        )
        if offset < 5:
            row.status, row.claims = SubtaskStatus.RUNNING, 1
            row.worker_id = workers[offset].pk
            row.claimed_at = now - timedelta(seconds=1.5 * offset + 0.4)
        elif offset == 5:
            row.status, row.attempts, row.retries = SubtaskStatus.SCHEDULED, 1, 1
            row.run_after = now + timedelta(seconds=75)
        yield row


def callback(taskset: TaskSetRecord, role: Role, name: str) -> SubtaskRecord:
    """A callback that waits for the set's end."""
    return SubtaskRecord(
        taskset=taskset,
        role=role,
        position=callback_position(role, 1),
        task_name=name,
        status=SubtaskStatus.WAITING,
        enqueued_at=taskset.enqueued_at,
        reason="",
        revoke_flag=0,
        claims=0,
        attempts=0,
        retries=0,
        crashes=0,
        errors="",
        error_fingerprint="",
    )


def make_errors(taskset: TaskSetRecord, rows: list[SubtaskRecord]) -> None:
    """The groups of what failed."""
    for kind in (TIMEOUT, BROKEN):
        failed = [row for row in rows if row.error_fingerprint == kind[-12:]]
        if failed:
            ErrorGroupRecord.objects.create(
                taskset=taskset,
                fingerprint=kind[-12:],
                exception_class=kind,
                message=failed[-1].reason.removeprefix(f"{kind}: "),
                count=len(failed),
                first_seen_at=failed[0].finished_at or taskset.enqueued_at,
                last_seen_at=failed[-1].finished_at or taskset.enqueued_at,
                latest_subtask_id=failed[-1].pk,
            )


def make_other_sets(now: datetime, user: Any) -> None:
    """One for each state that the list can show."""
    other = get_user_model().objects.create_user("ben")
    running = TaskSetStatus.RUNNING
    revoking = {"revoke_requested_at": now}
    none: dict[str, Any] = {}
    sets: list[tuple[str, TaskSetStatus, int, int, int, int, dict[str, Any]]] = [
        ("Crawl docs.example.org", running, 512, 430, 0, 0, {"sealed_at": None}),
        ("Newsletter November", running, 48_210, 17_002, 12, 0, {"paused_at": now}),
        ("Rebuild search index", running, 90_000, 12_400, 0, 8_300, revoking),
        ("Import customers.csv", TaskSetStatus.SUCCESSFUL, 1_000_000, 1_000_000, 0, 0, none),
        ("Nightly price sync", TaskSetStatus.FAILED, 2_000, 1_963, 37, 0, none),
        ("Export invoices 2025", TaskSetStatus.REVOKED, 640, 112, 0, 528, none),
        ("Warm the cache", TaskSetStatus.SUCCESSFUL, 24, 24, 0, 0, none),
        ("", TaskSetStatus.SAVED, 0, 0, 0, 0, {"sealed_at": None}),
    ]
    for age, (name, status, total, done, failed, revoked, marks) in enumerate(sets, start=1):
        begun = now - timedelta(minutes=7 * age)
        finished = status not in (running, TaskSetStatus.SAVED)
        record = TaskSetRecord(
            id=new_id() if name else uuid.uuid4(),
            name=name,
            status=status,
            total=total,
            remaining=0 if finished else total - done - failed - revoked,
            successful=total - failed - revoked if finished else done,
            failed=failed,
            revoked=revoked,
            enqueued_at=begun,
            started_at=begun,
            sealed_at=begun,
            finished_at=begun + timedelta(seconds=20 + total // 700) if finished else None,
            owner=(user, other, None)[age % 3],
        )
        for field, value in marks.items():
            setattr(record, field, value)
        record.save()
