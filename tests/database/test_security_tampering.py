"""Hands in the database: what can be put right is put right by the sweep, and said; what cannot be
is neither executed as what it is not, nor does it keep anybody else from ending."""

from __future__ import annotations

import io
import logging
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from django_tasksets.ids import new_id
from django_tasksets.maintenance import rescue
from django_tasksets.models import SubtaskRecord, TaskSetRecord, WorkerRecord
from django_tasksets.recording import record
from django_tasksets.statuses import FINISHED, Role
from django_tasksets.store import get_store
from django_tasksets.store.contract import Store
from django_tasksets.sweeping import counted_members, sweep
from tests import flow
from tests.hostile import work_off

pytestmark = pytest.mark.django_db

PASSES = 2


@pytest.fixture
def store() -> Store:
    return get_store()


class Tampered:
    """A set of four, one of which has succeeded, one failed, and two are to be executed."""

    def __init__(self, store: Store, **columns: Any) -> None:
        self.store = store
        self.taskset = flow.make_set(
            store, 4, callbacks=flow.CALLBACKS, member={"task_name": "tests.tasks.noop"}, **columns
        )
        callbacks = SubtaskRecord.objects.callbacks().filter(taskset=self.taskset)
        callbacks.update(task_name="tests.tasks.echo")
        worker_id = flow.new_worker(store)
        claimed = flow.claim_members(store, worker_id, self.taskset)
        outcomes = [flow.outcome(claimed[0]), flow.outcome(claimed[1], "FAILED")]
        outcomes += [flow.outcome(one, "READY", started=None) for one in claimed[2:]]
        assert len(record(store, worker_id, outcomes).written) == 4
        assert sweep(store) == 0

    @property
    def row(self) -> Any:
        return TaskSetRecord.objects.filter(id=self.taskset.id)

    def member(self, position: int) -> Any:
        return SubtaskRecord.objects.filter(taskset=self.taskset, position=position)

    def callback(self, role: Role) -> Any:
        return SubtaskRecord.objects.callbacks().filter(taskset=self.taskset, role=role)

    def finish(self) -> None:
        """Let everything end."""
        for _ in range(4):
            work_off(self.store)

    def check_ended(self) -> None:
        """It did, in order."""
        assert not SubtaskRecord.objects.exclude(status__in=FINISHED).exists()
        flow.assert_counts_add_up()
        assert self.row.get().is_finished


@contextmanager
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What is logged as a warning; nothing worse may be."""
    found: list[str] = []
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="django_tasksets"):
        yield found
    for entry in caplog.records:
        assert entry.levelno <= logging.WARNING, entry.getMessage()
        if entry.levelno == logging.WARNING:
            found.append(entry.getMessage())


# Counts

WRONG = {
    "fewer remaining": {"remaining": 1, "successful": 2},
    "none remaining": {"remaining": 0, "successful": 3},
    "none remaining and none failed": {"remaining": 0, "successful": 4, "failed": 0},
    "more remaining": {"remaining": 3, "successful": 0},
    "all remaining": {"remaining": 4, "successful": 0, "failed": 0},
    "a larger total": {"total": 14, "remaining": 12},
    "a smaller total": {"total": 2, "remaining": 0},
    "nothing": {"total": 0, "remaining": 0, "successful": 0, "failed": 0},
}


@pytest.mark.parametrize("columns", WRONG.values(), ids=WRONG)
def test_wrong_counts(store: Store, columns: dict[str, int], caplog: Any) -> None:
    tampered = Tampered(store)
    tampered.row.update(**columns)

    assert str(tampered.taskset.id) in verified(exit_code=1)
    with warnings(caplog) as found:
        repairs = [sweep(tampered.store) for _ in range(PASSES)]
    assert repairs == [1, 0]
    assert [str(tampered.taskset.id) in message for message in found] == [True]
    assert "taskset repaired" in found[0]
    assert flow.counts_of(tampered.taskset) == (4, 2, 1, 1, 0)
    verified(exit_code=0)
    tampered.finish()
    tampered.check_ended()
    assert tampered.row.get().status == "FAILED"
    assert flow.callbacks_of(tampered.taskset) == {
        "ON_SUCCESS": "REVOKED", "ON_FAILURE": "SUCCESSFUL", "ON_FINISH": "SUCCESSFUL",
    }  # fmt: skip


def verified(*, exit_code: int) -> str:
    """What `verifytasksets` says."""
    out = io.StringIO()
    if not exit_code:
        call_command("verifytasksets", stdout=out)
    else:
        with pytest.raises(SystemExit) as info:
            call_command("verifytasksets", stdout=out)
        assert info.value.code == exit_code
    return out.getvalue()


def test_results_that_come_while_the_counts_are_wrong_wait_for_the_sweep(store: Store) -> None:
    tampered = Tampered(store)
    worker_id = flow.new_worker(store)
    claimed = flow.claim_members(store, worker_id, tampered.taskset)
    tampered.row.update(remaining=0, successful=3)
    other = flow.make_set(store, 1)
    (its,) = flow.claim_members(store, worker_id, other)

    recorded = record(store, worker_id, [flow.outcome(one) for one in [*claimed, its]])

    assert {one.claimed.id for one in recorded.parked} == {one.id for one in claimed}
    assert flow.counts_of(other) == (1, 0, 1, 0, 0)
    assert sweep(store) == 1
    assert len(record(store, worker_id, recorded.parked).written) == 2
    tampered.finish()
    tampered.check_ended()


# One change, and what it comes to

Change = Callable[[Tampered], Any]


def to(rows: Callable[[Tampered], Any], **columns: Any) -> Change:
    """That row, with these columns."""

    def change(tampered: Tampered) -> None:
        assert rows(tampered).update(**columns) == 1

    return change


def gone(rows: Callable[[Tampered], Any]) -> Change:
    """That row, deleted."""

    def change(tampered: Tampered) -> None:
        assert rows(tampered).delete()[0] == 1

    return change


def the_set(tampered: Tampered) -> Any:
    return tampered.row


def member(position: int) -> Callable[[Tampered], Any]:
    return lambda tampered: tampered.member(position)


def callback(role: Role) -> Callable[[Tampered], Any]:
    return lambda tampered: tampered.callback(role)


# What leaves counts that are wrong.
REPAIRED: dict[str, Change] = {
    "a member that is to be executed is gone": gone(member(2)),
    "success claimed for a member": to(member(2), status="SUCCESSFUL", return_value="1"),
    "failure claimed for a member": to(member(2), status="FAILED"),
    "revocation claimed for a member": to(member(2), status="REVOKED"),
    "success taken back": to(member(0), status="READY"),
    "failure taken back": to(member(1), status="READY"),
    "a member of no set": to(member(2), taskset=None, position=None),
}  # fmt: skip


@pytest.mark.parametrize("change", REPAIRED.values(), ids=REPAIRED)
def test_the_sweep_puts_right(
    store: Store, change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    tampered = Tampered(store)
    change(tampered)

    with warnings(caplog) as found:
        repairs = sum(sweep(store) for _ in range(PASSES))
        assert sweep(store) == 0

    assert repairs == 1
    assert len([message for message in found if " repaired " in message]) == 1
    tampered.finish()
    tampered.check_ended()
    assert sweep(store) == 0


# What is no fault of the rows by themselves, and goes its way
HARMLESS: dict[str, Change] = {
    "claims written": to(member(2), claims=500),
    "claims taken back": to(member(2), claims=0),
    "negative claims": to(member(2), claims=-5),
    "a worker without a claim": to(member(2), worker_id=new_id()),
    "another priority": to(member(2), priority=-(2**15)),
    "another queue": to(member(2), queue_name="\x1b[31m\r\n"),
    "no queue": to(member(2), queue_name=""),
    "another task": to(member(2), task_name="os.system", deferrals=10),
    "other arguments": to(member(2), args='["x"]'),
    "another generation": to(member(2), generation=9),
    "held by a worker that is none": to(member(2), status="RUNNING", worker_id=new_id()),
    "waiting though the set is not paused": to(member(2), status="WAITING"),
    "due long ago": to(
        member(2), status="SCHEDULED", run_after=timezone.now() - timedelta(days=9_999)
    ),
    "expired": to(member(2), expires_at=timezone.now() - timedelta(days=9_999)),
    "never forgiven": to(the_set, forgiven=-5),
    "announced too early": to(the_set, announced_at=timezone.now()),
    "no callbacks promised": to(callback(Role.ON_SUCCESS), task_name="os.system"),
    "a callback that is gone": gone(callback(Role.ON_SUCCESS)),
    "a callback that somebody revoked": to(callback(Role.ON_FINISH), status="REVOKED"),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_is_not_wrong_by_itself_ends_like_anything_else(store: Store, change: Change) -> None:
    tampered = Tampered(store)
    change(tampered)

    for _ in range(PASSES):
        assert sweep(store) == 0
        rescue(store)
        store.promote(100)
    tampered.finish()

    tampered.check_ended()
    assert sweep(store) == 0


def test_workers_that_are_gone_lose_what_they_hold(store: Store) -> None:
    tampered = Tampered(store)
    worker_id = flow.new_worker(store)
    claimed = flow.claim_members(store, worker_id, tampered.taskset)
    WorkerRecord.objects.all().delete()

    assert rescue(store) == 2

    assert len(record(store, worker_id, [flow.outcome(one) for one in claimed]).late) == 2
    tampered.finish()
    tampered.check_ended()


@pytest.mark.parametrize(
    "columns",
    [{"claims": 9}, {"claims": 0}, {"worker_id": uuid.UUID(int=1)}, {"status": "READY"}],
    ids=str,
)  # fmt: skip
def test_a_result_under_a_fence_that_was_rewritten_is_late(
    store: Store, columns: dict[str, Any]
) -> None:
    tampered = Tampered(store)
    worker_id = flow.new_worker(store)
    first, second = flow.claim_members(store, worker_id, tampered.taskset)
    SubtaskRecord.objects.filter(id=first.id).update(**columns)

    recorded = record(store, worker_id, [flow.outcome(first), flow.outcome(second)])

    assert [one.claimed.id for one in recorded.written] == [second.id]
    assert [one.claimed.id for one in recorded.late] == [first.id]
    # Its worker ends, as any does.
    WorkerRecord.objects.all().delete()
    for _ in range(PASSES):
        sweep(store)
        rescue(store)
    tampered.finish()
    tampered.check_ended()


# Finished sets


def finished(store: Store) -> Tampered:
    """One that has ended with all its callbacks."""
    tampered = Tampered(store)
    tampered.finish()
    tampered.check_ended()
    return tampered


def test_a_callback_that_waits_though_its_set_is_finished_is_released(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    tampered = finished(store)
    tampered.callback(Role.ON_FAILURE).update(status="WAITING")

    with warnings(caplog) as found:
        assert sweep(store) == 1

    assert "released=" in found[0]
    assert flow.callbacks_of(tampered.taskset)["ON_FAILURE"] == "READY"
    tampered.finish()
    tampered.check_ended()


def test_a_status_that_is_none_keeps_no_other_set_from_being_announced(store: Store) -> None:
    long_ago = timezone.now() - timedelta(days=1)
    strange, other = finished(store), finished(store)
    strange.row.update(status="HACKED", announced_at=None, finished_at=long_ago)
    other.row.update(announced_at=None, finished_at=timezone.now() - timedelta(minutes=5))

    sweep(store)

    assert other.row.get().announced_at is not None


# Everything at once


def test_one_set_that_cannot_be_repaired_keeps_no_other_from_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Tampered(store), Tampered(store)
    for tampered in (first, second):
        tampered.row.update(remaining=1, successful=2)

    def broken(store: Store, key: uuid.UUID) -> dict[str, int]:
        if key == first.taskset.id:
            raise ValueError("of no use")
        return counted_members(store, key)

    monkeypatch.setattr("django_tasksets.sweeping.counted_members", broken)

    assert sweep(store) == 1

    assert flow.counts_of(second.taskset) == (4, 2, 1, 1, 0)
    (entry,) = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert re.fullmatch(rf"taskset not swept id={first.taskset.id}", entry.getMessage())
