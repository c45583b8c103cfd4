"""What follows from outcomes, found out before they are written."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

from django.utils import timezone

from django_tasksets.consequences import Consequences, consequences
from django_tasksets.statuses import SubtaskStatus
from django_tasksets.store.contract import Claimed, Outcome, Tally

ONE, OTHER = uuid.uuid4(), uuid.uuid4()


def outcome(
    status: str = "SUCCESSFUL",
    taskset_id: uuid.UUID | None = ONE,
    role: str = "MEMBER",
    links: str = "",
) -> Outcome:
    claimed = Claimed(
        id=uuid.uuid4(), claims=1, task_name="add", args="[]", kwargs="{}", options="",
        links=links, taskset_id=taskset_id, role=role, generation=3, queue_name="slow", priority=0,
        claim_order=0, attempts=0, retries=0, crashes=0, deferrals=0, enqueued_at=timezone.now(),
        expires_at=None,
    )  # fmt: skip
    return Outcome(claimed, SubtaskStatus(status), started=time.monotonic() - 5)


def test_members_are_counted_by_set_and_by_outcome() -> None:
    outcomes = [
        outcome(), outcome("FAILED"), outcome(taskset_id=OTHER), outcome("REVOKED"), outcome(),
        replace(outcome("REVOKED", OTHER), started=None),
    ]  # fmt: skip
    tallies = {tally.taskset_id: tally for tally in consequences(outcomes).tallies()}
    assert tallies[ONE][1:4] == (2, 1, 1)
    assert tallies[OTHER][1:4] == (1, 0, 1)


def test_a_set_has_begun_with_the_first_of_them_however_long_the_count_has_to_wait() -> None:
    found = consequences([outcome(), replace(outcome(), started=time.monotonic() - 9)])
    (before,) = found.tallies()
    assert 9 <= before.age < 10
    time.sleep(0.02)
    (after,) = found.tallies()
    assert after.age - before.age >= 0.02


def test_a_set_of_which_nothing_began_has_not_begun() -> None:
    never = replace(outcome("REVOKED"), started=None)
    assert consequences([never]).tallies() == [Tally(ONE, 0, 0, 1, 0.0)]


def test_what_is_given_back_ends_nothing() -> None:
    ready, scheduled = outcome("READY", links="{}"), outcome("SCHEDULED")
    found = consequences([ready, scheduled])
    assert found == Consequences(ready={ready.claimed.id: "slow"})


def test_failures_and_what_has_links_are_told_apart() -> None:
    plain, linked, failed = outcome(), outcome(links="{}"), outcome("FAILED", links="{}")
    found = consequences([plain, linked, failed])
    assert found.linked == [linked, failed]
    assert found.failed == [failed]
    assert found.tallies()[0][1:4] == (2, 1, 0)


def test_the_last_callback_may_follow_the_one_before_it() -> None:
    ended = [outcome(role=role) for role in ("ON_SUCCESS", "ON_FAILURE", "ON_FINISH")]
    alone = [outcome(taskset_id=None), outcome(taskset_id=None, role="ON_SUCCESS")]
    assert consequences([*ended, *alone]) == Consequences(callbacks=[(ONE, 3), (ONE, 3)])
