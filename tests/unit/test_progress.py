from __future__ import annotations

import datetime
from typing import Any

import pytest

from django_tasksets import Progress, TaskSetStatus
from django_tasksets.progress import progress_of_list

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def progress(**counts: Any) -> Progress:
    done = sum(counts.get(name, 0) for name in ("successful", "failed", "revoked"))
    given: dict[str, Any] = {
        "status": TaskSetStatus.RUNNING,
        "total": 1000,
        "read_at": NOW,
        "started_at": NOW - datetime.timedelta(seconds=10),
    } | counts
    return Progress(remaining=given["total"] - done, **given)


@pytest.mark.parametrize(
    ("successful", "percent"), [(0, 0), (9, 0), (10, 1), (999, 99), (1000, 99)]
)
def test_percent_is_rounded_down_and_100_only_at_the_end(successful: int, percent: int) -> None:
    assert progress(successful=successful).percent == percent


def test_a_finished_set_is_at_100_percent() -> None:
    assert progress(successful=1000, status=TaskSetStatus.SUCCESSFUL).percent == 100
    assert progress(total=0, status=TaskSetStatus.SUCCESSFUL).percent == 100
    assert progress(total=0).percent == 0


def test_finished_counts_all_endings() -> None:
    assert progress(successful=1, failed=2, revoked=3).finished == 6


def test_the_rate_is_per_second() -> None:
    assert progress(successful=50, failed=50).rate == 10
    assert progress().rate == 0
    assert progress(started_at=None, successful=1).rate == 0


def test_the_rate_of_a_finished_set_is_that_of_its_time() -> None:
    finished_at = NOW - datetime.timedelta(seconds=5)
    status = TaskSetStatus.SUCCESSFUL
    assert progress(successful=1000, finished_at=finished_at, status=status).rate == 200


def test_the_eta_is_the_rest_at_this_rate() -> None:
    assert progress(successful=100).eta == datetime.timedelta(seconds=90)


def test_the_eta_waits_for_five_seconds_or_ten_members() -> None:
    recently = NOW - datetime.timedelta(seconds=1)
    assert progress(successful=9, started_at=recently).eta is None
    assert progress(successful=10, started_at=recently).eta == datetime.timedelta(seconds=99)
    assert progress(successful=1).eta is not None
    assert progress(successful=0).eta is None


@pytest.mark.parametrize("state", ["is_open", "is_paused", "is_revoking"])
def test_there_is_no_eta_for_what_does_not_just_run(state: str) -> None:
    assert progress(successful=100, **{state: True}).eta is None


def test_a_clock_that_went_back_makes_no_negative_time() -> None:
    late = NOW + datetime.timedelta(seconds=5)
    assert progress(successful=10, started_at=late).elapsed == datetime.timedelta()


def test_a_list_that_was_counted_ends_like_a_set() -> None:
    def status(**counts: int) -> TaskSetStatus:
        return progress_of_list(
            **{"total": 2, "successful": 0, "failed": 0, "revoked": 0} | counts
        ).status

    assert status() == TaskSetStatus.RUNNING
    assert status(total=0) == TaskSetStatus.SUCCESSFUL
    assert status(successful=2) == TaskSetStatus.SUCCESSFUL
    assert status(successful=1, revoked=1) == TaskSetStatus.REVOKED
    assert status(failed=1, revoked=1) == TaskSetStatus.FAILED
