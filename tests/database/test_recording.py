"""A recording is one transaction, and of two outcomes of one claim the first counts."""

from __future__ import annotations

from typing import Any

import pytest

from django_tasksets.models import SubtaskRecord
from django_tasksets.recording import record
from django_tasksets.statuses import RevokeFlag, Role
from django_tasksets.store import get_store
from tests import flow

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    "step", ["recording.settle_counted", "completion.release", "recording.enqueue_links",
             "recording.count_errors"],
)  # fmt: skip
def test_what_stops_half_way_leaves_nothing(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a crash does between any two statements."""
    store = get_store()
    worker = flow.new_worker(store)
    taskset = flow.make_set(store, 2, callbacks=[Role.ON_FAILURE])
    held = flow.claim_members(store, worker, taskset)
    done = [flow.outcome(held[0]._replace(links="{}")), flow.outcome(held[1], "FAILED")]

    def stop(*_: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(f"django_tasksets.{step}", stop)
        with pytest.raises(ZeroDivisionError):
            record(store, worker, done)

    assert flow.statuses_of([one.id for one in held]) == ["RUNNING"] * 2
    assert flow.counts_of(taskset) == (2, 2, 0, 0, 0)
    taskset.refresh_from_db()
    assert taskset.status == "RUNNING"
    assert flow.callbacks_of(taskset) == {"ON_FAILURE": "WAITING"}
    assert len(record(store, worker, done).written) == 2
    assert flow.counts_of(taskset) == (2, 0, 1, 1, 0)
    assert flow.callbacks_of(taskset) == {"ON_FAILURE": "READY"}


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.parametrize(("first", "second"), [("SUCCESSFUL", "READY"), ("READY", "SUCCESSFUL")])
def test_of_two_outcomes_of_one_claim_the_first_counts(
    first: str, second: str, others: int
) -> None:
    """A task returns while it is being given back."""
    store = get_store()
    worker = flow.new_worker(store)
    taskset = flow.make_set(store, 1 + others, callbacks=[Role.ON_SUCCESS])
    one, *rest = flow.claim_members(store, worker, taskset)
    counted, late = flow.outcome(one, first), flow.outcome(one, second)

    recorded = record(store, worker, [counted, *map(flow.outcome, rest), late])

    assert recorded.late == [late]
    assert len(recorded.written) == 1 + others
    assert flow.fetch(one.id).status == first
    left = int(first == "READY")
    assert flow.counts_of(taskset) == (1 + others, left, 1 + others - left, 0, 0)
    assert flow.callbacks_of(taskset) == {"ON_SUCCESS": "WAITING" if left else "READY"}


def test_one_that_was_called_off_counts_as_that() -> None:
    """It is recorded otherwise than was asked for."""
    store = get_store()
    worker = flow.new_worker(store)
    taskset = flow.make_set(store, 2)
    first, second = flow.claim_members(store, worker, taskset)
    SubtaskRecord.objects.filter(id=first.id).update(revoke_flag=RevokeFlag.REVOKE)

    recorded = record(store, worker, [flow.outcome(first, "READY"), flow.outcome(second)])

    assert sorted(str(outcome.status) for outcome in recorded.written) == ["REVOKED", "SUCCESSFUL"]
    assert not recorded.ready
    assert flow.counts_of(taskset) == (2, 0, 1, 0, 1)
