"""What users do, once each: `python -m tests.chaos.scenario life` is a process that does it.

It may end, break or stop at any point of it. Each deed is followed by the next one whatever became
of it; who starts it says by heal() what an operator would.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import django
from django.db import Error, connection, transaction
from django.utils import timezone

LIMIT: Final = 10.0
NOWHERE: Final = "nowhere"
"""A queue that no worker looks at."""
RESCUED: Final = "rescued"
"""A queue: what is in it has been claimed by a worker that is dead."""


def apply_one() -> None:
    from tests.chaos import load

    load.apply(load.squares(3, 0.01))


def retry_and_grow() -> None:
    """A member that asks to be retried, and one that adds another one."""
    from tests.chaos import load, tasks

    load.apply([tasks.square_at_last.subtask((2,)), tasks.square_and_add.subtask((3,))])


def open_and_seal() -> None:
    """Unless this process stops for so long that the sweep revokes its open set, as it must."""
    from django_tasksets import TaskSet
    from django_tasksets.conf import current
    from django_tasksets.exceptions import TaskSetSealed
    from tests.chaos import load, tasks

    begun = time.monotonic()
    taskset = TaskSet(on_success=tasks.collect.subtask(), on_failure=tasks.tell.subtask())
    try:
        with taskset.open() as it:
            for call in load.squares(2, 0.01):
                it.add(call)
    except TaskSetSealed:
        if time.monotonic() < begun + (current().OPEN_TIMEOUT or 0):
            raise


def fail_and_retry() -> None:
    """A set that fails; once it has, what failed is executed again."""
    from tests.chaos import load, tasks

    result = load.apply([*load.squares(2, 0.01), tasks.fail_once.subtask((4,))])
    until = time.monotonic() + LIMIT
    while not result.ready() and time.monotonic() < until:
        time.sleep(0.02)
    result.retry_failed()


def revoke_one() -> None:
    from tests.chaos import load, tasks

    later = tasks.square.subtask((1,), options={"countdown": 3600})
    load.apply([*load.squares(1, 0.01), later, later]).revoke()


def pause_and_resume() -> None:
    from tests.chaos import load

    result = load.apply(load.squares(4, 0.05))
    result.pause()
    result.resume()


def be_claimed_by_the_dead() -> None:
    """What a worker has claimed that is dead now, before anybody has given it back."""
    from django_tasksets.ids import new_id
    from django_tasksets.store import get_store
    from tests.chaos import load

    with transaction.atomic():
        load.apply(load.squares(3, 0.01), queue=RESCUED)
        assert len(get_store().claim(new_id(), [RESCUED], 3)) == 3


def miscount() -> None:
    """A hand in the rows, for the sweep to repair: once with counts that are wrong, once with an
    end that nobody has noticed, once with callbacks that nobody has released."""
    from django_tasksets.models import SubtaskRecord, TaskSetRecord
    from tests.chaos import load

    now = timezone.now()
    wrong, over, unreleased = (load.apply(load.squares(2, 0.0), queue=NOWHERE) for _ in range(3))
    with transaction.atomic():
        TaskSetRecord.objects.filter(id=wrong.id).update(total=3, remaining=3)
        ids = [uuid.UUID(over.id), uuid.UUID(unreleased.id)]
        members = SubtaskRecord.objects.members().filter(taskset_id__in=ids)
        members.update(status="REVOKED", finished_at=now)
        TaskSetRecord.objects.filter(id__in=ids).update(remaining=0, revoked=2)
        TaskSetRecord.objects.filter(id=unreleased.id).update(status="REVOKED", finished_at=now)


SCENARIOS: Final[dict[str, tuple[Callable[[], None], ...]]] = {
    "life": (
        be_claimed_by_the_dead,
        apply_one,
        retry_and_grow,
        open_and_seal,
        revoke_one,
        pause_and_resume,
        fail_and_retry,
    ),
    "repair": (miscount, apply_one),
}


def heal() -> None:
    """What an operator does after a process has ended halfway."""
    from django_tasksets import TaskSetResult
    from django_tasksets.models import SubtaskRecord, TaskSetRecord

    for row in TaskSetRecord.objects.running():
        if row.paused_at is not None:
            TaskSetResult(row.id).resume()
        if SubtaskRecord.objects.filter(taskset=row, status="SCHEDULED").exists():
            TaskSetResult(row.id).revoke()
    SubtaskRecord.objects.filter(queue_name=NOWHERE).update(queue_name="default")


def main(name: str) -> None:
    django.setup()
    for deed in SCENARIOS[name]:
        try:
            deed()
        except Error as error:
            print(f"{deed.__name__}: {error!r}")  # noqa: T201  to be read where this fails
            with suppress(Error):
                connection.close()


if __name__ == "__main__":
    main(sys.argv[1])
