"""Pause and resume, retry, run again: counts add up, and callbacks come once a generation."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from django.test import override_settings
from django.utils import timezone

from django_tasksets import (
    AlreadyApplied,
    AsyncResult,
    TaskSet,
    TaskSetResult,
    UnknownId,
    gen_unique_id,
    steering,
    sweeping,
)
from django_tasksets.completion import locked_state
from django_tasksets.control import delete_set, revoke_rest
from django_tasksets.ids import new_id
from django_tasksets.maintenance import sweep
from django_tasksets.models import ErrorGroupRecord, SubtaskRecord, TaskSetRecord
from django_tasksets.pruning import Retention, prune
from django_tasksets.recording import record
from django_tasksets.slicing import slices
from django_tasksets.statuses import Role, SubtaskStatus, TaskSetStatus
from django_tasksets.steering import (
    pause_set,
    rerun_set,
    resume_set,
    retry_failed_set,
    retry_subtasks,
)
from django_tasksets.store import get_store
from django_tasksets.testing import run_subtasks
from django_tasksets.verifying import discrepancies
from tests import flow
from tests import tasks_steering as tasks

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _reset() -> None:
    tasks.reset()


def key_of(result: TaskSetResult) -> uuid.UUID:
    return uuid.UUID(result.taskset_id)


def members(result: TaskSetResult) -> list[str]:
    rows = SubtaskRecord.objects.members().filter(taskset_id=key_of(result))
    return list(rows.order_by("position").values_list("status", flat=True))


def flaky_set(*kinds: str, **options: object) -> TaskSetResult:
    calls = [tasks.flaky.subtask((index, kind)) for index, kind in enumerate(kinds)]
    return TaskSet(
        calls,
        on_success=tasks.note.subtask(("success",)),
        on_failure=tasks.note.subtask(("failure",)),
        on_finish=tasks.note.subtask(("finish",)),
        **options,  # type: ignore[arg-type]
    ).apply_async()


def test_a_paused_set_is_not_executed_and_goes_on_when_it_is_resumed() -> None:
    result = flaky_set("good", "good")
    assert pause_set(key_of(result)) is True
    assert members(result) == ["WAITING", "WAITING"]
    assert run_subtasks() == 0

    assert resume_set(key_of(result)) is True
    assert run_subtasks() == 4
    assert result.successful()
    assert tasks.noted == ["success", "finish"]


def test_pausing_twice_or_resuming_what_runs_says_so() -> None:
    result = flaky_set("good")
    assert resume_set(key_of(result)) is False
    assert pause_set(key_of(result)) is True
    assert pause_set(key_of(result)) is False


@pytest.mark.parametrize(
    ("begun", "then", "left"),
    [(pause_set, resume_set, "READY"), (resume_set, pause_set, "WAITING")],
)
def test_a_pause_and_a_resumption_stop_where_the_other_has_come(
    meanwhile: Meanwhile,
    begun: Callable[[uuid.UUID], bool],
    then: Callable[[uuid.UUID], bool],
    left: str,
) -> None:
    """The later one wins, though the earlier one still has members to go through."""
    result = flaky_set(*["good"] * 3)
    if begun is resume_set:
        pause_set(key_of(result))
    calls = [then]
    meanwhile.call(lambda: calls and calls.pop()(key_of(result)))

    assert begun(key_of(result))

    assert not calls
    assert members(result) == [left] * 3


def test_a_scheduled_member_is_scheduled_again_after_a_pause() -> None:
    result = TaskSet([tasks.flaky.subtask((0, "good"), {}, {"countdown": 3600})]).apply_async()
    pause_set(key_of(result))
    assert members(result) == ["WAITING"]
    resume_set(key_of(result))
    assert members(result) == ["SCHEDULED"]


def test_a_retry_in_a_paused_set_is_held_back() -> None:
    result = TaskSet([tasks.pauses_its_set.subtask()]).apply_async()
    run_subtasks()
    assert members(result) == ["WAITING"]
    resume_set(key_of(result))
    run_subtasks(scheduled=True)
    assert result.successful()


def test_what_is_added_to_a_paused_set_is_held_back() -> None:
    with TaskSet().open() as result:
        pause_set(key_of(result))
        result.add(tasks.flaky.subtask((0, "good")))
        assert members(result) == ["WAITING"]
        resume_set(key_of(result))
    run_subtasks()
    assert result.successful()


def test_retrying_a_finished_set_begins_a_generation_with_callbacks_of_its_own() -> None:
    result = flaky_set("good", "bad", "bad")
    run_subtasks()
    assert (result.failed(), tasks.noted) == (True, ["failure", "finish"])

    tasks.mend()
    assert retry_failed_set(key_of(result)) == 2
    row = result.record
    assert row is not None
    assert (row.status, row.generation) == (TaskSetStatus.RUNNING, 2)
    assert (row.total, row.remaining, row.successful, row.failed) == (3, 2, 1, 0)

    run_subtasks()
    assert result.successful()
    assert tasks.noted == ["failure", "finish", "success", "finish"]
    assert tasks.executed == [0, 1, 2, 1, 2]
    generations = SubtaskRecord.objects.members().order_by("position")
    assert list(generations.values_list("generation", flat=True)) == [1, 2, 2]
    callbacks = SubtaskRecord.objects.callbacks().filter(taskset_id=key_of(result))
    assert sorted(callbacks.values_list("generation", "role", "status")) == [
        (1, Role.ON_FAILURE, SubtaskStatus.SUCCESSFUL),
        (1, Role.ON_FINISH, SubtaskStatus.SUCCESSFUL),
        (1, Role.ON_SUCCESS, SubtaskStatus.REVOKED),
        (2, Role.ON_FAILURE, SubtaskStatus.REVOKED),
        (2, Role.ON_FINISH, SubtaskStatus.SUCCESSFUL),
        (2, Role.ON_SUCCESS, SubtaskStatus.SUCCESSFUL),
    ]


def test_retrying_while_the_set_runs_stays_in_its_generation() -> None:
    result = flaky_set("bad", "good")
    run_subtasks(limit=1)
    tasks.mend()
    assert retry_failed_set(key_of(result)) == 1
    run_subtasks()
    row = result.record
    assert row is not None
    assert (row.generation, row.status, row.successful) == (1, TaskSetStatus.SUCCESSFUL, 2)
    assert tasks.noted == ["success", "finish"]


def test_a_revoked_set_can_be_retried() -> None:
    result = flaky_set("good", "good")
    result.revoke()
    run_subtasks()
    assert tasks.noted == ["failure", "finish"]
    assert retry_failed_set(key_of(result)) == 2
    run_subtasks()
    assert result.successful()


@pytest.mark.parametrize("is_revoked", [False, True])
def test_revoking_what_is_finished_changes_nothing(is_revoked: bool) -> None:
    """Nor does it again: on_finish still waits for the callback before it."""
    result = flaky_set("good")
    store, worker = get_store(), new_id()
    if is_revoked:
        assert result.revoke() == 1
    else:
        record(store, worker, list(map(flow.outcome, store.claim(worker, (), 9))))
    before = result.record
    assert before is not None
    callbacks = {name: callback.status for name, callback in result.callbacks.items()}
    due = "on_failure" if is_revoked else "on_success"
    assert (callbacks[due], callbacks["on_finish"]) == ("READY", "WAITING")

    assert result.revoke() == 0

    assert result.record is not None
    assert result.record.revoke_requested_at == before.revoke_requested_at
    assert result.record.finished_at == before.finished_at
    assert {name: callback.status for name, callback in result.callbacks.items()} == callbacks


def test_one_group_of_errors_can_be_retried() -> None:
    result = flaky_set("bad", "worse", "worse")
    run_subtasks()
    groups = ErrorGroupRecord.objects.filter(taskset_id=key_of(result))
    counts = {group.exception_class: group.count for group in groups}
    assert counts == {"builtins.ValueError": 1, "builtins.KeyError": 2}

    tasks.mend()
    group = groups.get(exception_class="builtins.KeyError")
    assert retry_failed_set(key_of(result), fingerprint=group.fingerprint) == 2
    assert [group.exception_class for group in groups.all()] == ["builtins.ValueError"]
    run_subtasks()
    progress = result.progress()
    assert (progress.successful, progress.failed) == (2, 1)


def test_nothing_to_retry_changes_nothing() -> None:
    result = flaky_set("good")
    run_subtasks()
    assert retry_failed_set(key_of(result)) == 0
    assert result.successful()
    assert retry_failed_set(uuid.uuid4()) == 0


def test_single_subtasks_members_and_callbacks_can_be_retried() -> None:
    single = tasks.flaky.delay(7, "bad")
    result = flaky_set("bad", "bad")
    run_subtasks()
    tasks.mend()
    member = SubtaskRecord.objects.get(taskset_id=key_of(result), position=1)
    assert retry_subtasks([uuid.UUID(single.id), member.id]) == 2
    run_subtasks()
    assert single.successful()
    assert members(result) == ["FAILED", "SUCCESSFUL"]
    assert tasks.noted == ["failure", "finish", "failure", "finish"]


def test_a_callback_that_failed_can_be_retried_and_one_that_was_not_needed_cannot() -> None:
    result = TaskSet(
        [tasks.flaky.subtask((0, "good"))],
        on_success=tasks.flaky_callback.subtask(),
        on_failure=tasks.note.subtask(("failure",)),
    ).apply_async()
    run_subtasks()
    callbacks = SubtaskRecord.objects.callbacks().filter(taskset_id=key_of(result))
    tasks.mend()
    assert retry_subtasks(list(callbacks.values_list("id", flat=True))) == 1
    run_subtasks()
    assert callbacks.get(role=Role.ON_SUCCESS).status == SubtaskStatus.SUCCESSFUL
    assert tasks.noted == []


def test_a_set_can_be_run_again() -> None:
    result = flaky_set("good", "bad", name="census", metadata={"of": "trees"})
    run_subtasks()
    tasks.mend()
    again = TaskSetResult(rerun_set(key_of(result)))
    run_subtasks()
    row = again.record
    assert row is not None
    assert (row.origin_id, row.name, row.get_metadata()) == (
        key_of(result),
        "census",
        {"of": "trees"},
    )
    assert again.join() == [0, 1]
    assert tasks.noted == ["failure", "finish", "success", "finish"]
    assert result.failed()


def test_only_what_was_applied_can_be_run_again() -> None:
    with pytest.raises(UnknownId):
        rerun_set(uuid.uuid4())


def test_counts_stay_right_under_the_database_constraint() -> None:
    result = flaky_set(*["bad"] * 20)
    for _ in range(3):
        run_subtasks()
        retry_failed_set(key_of(result))
    tasks.mend()
    run_subtasks()
    row = TaskSetRecord.objects.get(id=key_of(result))
    assert (row.total, row.successful, row.failed, row.generation) == (20, 20, 0, 4)


def test_the_sweep_ends_a_pause_that_was_cut_short() -> None:
    result = flaky_set("good", "good")
    TaskSetRecord.objects.update(paused_at=timezone.now())

    assert sweep(get_store()) == 0
    assert members(result) == ["WAITING", "WAITING"]


def test_the_sweep_ends_a_resumption_that_was_cut_short() -> None:
    result = flaky_set("good", "good")
    pause_set(key_of(result))
    TaskSetRecord.objects.update(paused_at=None)
    assert run_subtasks() == 0

    assert sweep(get_store()) == 0
    assert run_subtasks() == 4
    assert result.successful()


def test_failures_from_before_a_retry_count_against_the_limit_no_more() -> None:
    result = flaky_set("bad", "bad", "worse", "good", max_failures=2)
    run_subtasks()
    assert members(result) == ["FAILED", "FAILED", "FAILED", "REVOKED"]

    rows = SubtaskRecord.objects.filter(taskset_id=key_of(result))
    assert retry_subtasks(list(rows.filter(position__gte=2).values_list("id", flat=True))) == 2
    run_subtasks()

    assert members(result) == ["FAILED", "FAILED", "FAILED", "SUCCESSFUL"]
    # What fails from now on counts again.
    retry_failed_set(key_of(result))
    run_subtasks()
    assert result.progress().failed == 3


class Meanwhile:
    """Calls a function after every transaction of the store's, as others may do something then."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._is_inside = False

    def call(self, function: Callable[[], object]) -> None:
        kind = type(get_store())
        run = kind.run

        def run_and_call(store: Any, work: Any) -> Any:
            done = run(store, work)
            if not self._is_inside:
                self._is_inside = True
                function()
                self._is_inside = False
            return done

        self._patch.setattr(kind, "run", run_and_call)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    monkeypatch.setattr(steering, "SLICE", 1)
    monkeypatch.setitem(cast(dict[str, Any], slices.__kwdefaults__), "size", 1)
    return Meanwhile(monkeypatch)


def test_many_that_are_retried_are_taken_back_at_once(meanwhile: Meanwhile) -> None:
    result = flaky_set("bad", "bad", "bad")
    run_subtasks()
    tasks.mend()
    failed = list(SubtaskRecord.objects.members().values_list("id", flat=True))
    meanwhile.call(run_subtasks)

    assert retry_subtasks(failed) == 3

    row = TaskSetRecord.objects.get(id=key_of(result))
    assert (row.status, row.generation) == (TaskSetStatus.SUCCESSFUL, 2)
    assert tasks.noted == ["failure", "finish", "success", "finish"]


def test_a_revocation_stops_where_the_set_is_retried(meanwhile: Meanwhile) -> None:
    result = flaky_set("good", "good", "good")
    TaskSetRecord.objects.update(revoke_requested_at=timezone.now())
    meanwhile.call(lambda: retry_failed_set(key_of(result)))

    assert revoke_rest(get_store(), key_of(result)) == 1

    assert members(result) == ["READY", "READY", "READY"]
    run_subtasks()
    assert result.successful()


def test_what_is_being_deleted_is_not_retried(meanwhile: Meanwhile) -> None:
    result = flaky_set("good", "bad", "bad")
    run_subtasks()
    callback = SubtaskRecord.objects.callbacks().get(role=Role.ON_FAILURE)
    retried: list[int] = []

    def retry() -> None:
        retried.append(retry_failed_set(key_of(result)))
        with pytest.raises(UnknownId):
            rerun_set(key_of(result))

    meanwhile.call(retry)
    delete_set(key_of(result))

    assert len(retried) > 3
    assert sum(retried) == 0
    assert not TaskSetRecord.objects.exists()
    assert not SubtaskRecord.objects.exists()
    assert retry_subtasks([callback.id]) == 0


def test_pruning_ends_a_deletion_that_was_cut_short() -> None:
    result, kept = flaky_set("bad"), flaky_set("bad")
    run_subtasks()
    TaskSetRecord.objects.filter(id=key_of(result)).update(discarded_at=timezone.now())
    SubtaskRecord.objects.members().filter(taskset_id=key_of(result)).delete()
    callbacks = SubtaskRecord.objects.callbacks().filter(taskset_id=key_of(result))
    SubtaskRecord.objects.filter(id__in=callbacks).update(status=SubtaskStatus.FAILED)

    assert retry_subtasks(list(callbacks.values_list("id", flat=True))) == 0
    assert list(discrepancies(get_store())) == []
    assert prune(Retention(successful=None, others=None)).sets == 1

    assert [row.id for row in TaskSetRecord.objects.all()] == [key_of(kept)]
    assert not SubtaskRecord.objects.filter(taskset_id=key_of(result)).exists()


def test_a_saved_set_is_applied_or_deleted(meanwhile: Meanwhile) -> None:
    setid, key = gen_unique_id(), gen_unique_id()
    result = TaskSetResult(setid, [AsyncResult(key)])
    result.save()
    call = tasks.flaky.subtask((0, "good"), options={"task_id": key})
    refused: list[bool] = []

    def apply() -> None:
        try:
            TaskSet([call]).apply_async(taskset_id=setid)
        except AlreadyApplied:
            refused.append(True)

    meanwhile.call(apply)
    delete_set(key_of(result))
    assert refused
    assert not SubtaskRecord.objects.exists()
    assert not TaskSetRecord.objects.exists()


def test_a_set_that_is_deleted_meanwhile_is_run_again_as_a_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(cast(dict[str, Any], slices.__kwdefaults__), "size", 2)
    result = flaky_set("good", "good", "good", "good")
    run_subtasks()
    copy, copies = steering.copied, 0

    def copied(*args: Any, **kwargs: Any) -> Any:
        nonlocal copies
        copies += 1
        if copies == 2:
            delete_set(key_of(result))
        return copy(*args, **kwargs)

    monkeypatch.setattr(steering, "copied", copied)
    with pytest.raises(UnknownId):
        rerun_set(key_of(result))
    assert not SubtaskRecord.objects.exists()


def test_several_sets_are_locked_in_the_order_of_their_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = [flaky_set("bad") for _ in range(5)]
    run_subtasks()
    locked: list[uuid.UUID] = []

    def lock(store: Any, taskset_id: uuid.UUID) -> Any:
        locked.append(taskset_id)
        return locked_state(store, taskset_id)

    monkeypatch.setattr(steering, "locked_state", lock)
    rows = SubtaskRecord.objects.exclude(started_at=None).order_by("?")
    retry_subtasks(list(rows.values_list("id", flat=True)))
    assert locked == sorted(locked)
    assert set(locked) == {key_of(result) for result in results}


def test_an_error_group_counts_failures_and_no_revoked_attempts() -> None:
    result = flaky_set("bad", "bad")
    run_subtasks()
    revoked = SubtaskRecord.objects.filter(taskset_id=key_of(result), position=1)
    retry_subtasks(list(revoked.values_list("id", flat=True)))
    # Its attempt has left a fingerprint; then it is revoked.
    mark = SubtaskRecord.objects.get(taskset_id=key_of(result), position=0).error_fingerprint
    revoked.update(error_fingerprint=mark)
    result.revoke()
    assert retry_subtasks(list(revoked.values_list("id", flat=True))) == 1
    assert [group.count for group in ErrorGroupRecord.objects.all()] == [1]


def test_what_is_retried_is_not_terminated(meanwhile: Meanwhile) -> None:
    result = flaky_set("good", "good")
    get_store().claim(uuid.uuid4(), (), 2)

    def unmark() -> None:
        TaskSetRecord.objects.update(revoke_requested_at=None)

    meanwhile.call(unmark)
    result.revoke(terminate=True)
    assert set(SubtaskRecord.objects.members().values_list("revoke_flag")) == {(0,)}


def test_a_callback_that_never_began_can_be_retried() -> None:
    result = TaskSet(
        [tasks.flaky.subtask((0, "good"))], on_success=tasks.note.subtask(("success",))
    ).apply_async()
    callback = SubtaskRecord.objects.callbacks().get()
    # Revoked by itself, and not due before its set has ended.
    result.callbacks["on_success"].revoke()
    assert retry_subtasks([callback.id]) == 0
    run_subtasks()
    assert tasks.noted == []
    assert retry_subtasks([callback.id]) == 1
    run_subtasks()
    assert tasks.noted == ["success"]


@pytest.mark.parametrize(
    ("outcome", "other", "noted"),
    [("good", "on_failure", ["success"]), ("bad", "on_success", ["failure"])],
)
def test_a_callback_for_another_outcome_cannot_be_retried(
    outcome: str, other: str, noted: list[str]
) -> None:
    """Not even if somebody revoked it before its set had come to that."""
    result = TaskSet(
        [tasks.flaky.subtask((1, outcome))],
        on_success=tasks.note.subtask(("success",)),
        on_failure=tasks.note.subtask(("failure",)),
    ).apply_async()
    result.callbacks[other].revoke()
    run_subtasks()
    callback = result.callbacks[other]

    assert retry_subtasks([uuid.UUID(callback.id)]) == 0

    run_subtasks()
    assert tasks.noted == noted
    assert callback.status == "REVOKED"


@pytest.mark.parametrize("role", ["on_failure", "on_finish"])
def test_a_callback_that_its_set_has_not_come_to_cannot_be_retried(role: str) -> None:
    callbacks: dict[str, Any] = {role: tasks.note.subtask(("too early",))}
    result = TaskSet([tasks.flaky.subtask((1, "good"))], **callbacks).apply_async()
    result.callbacks[role].revoke()

    assert retry_subtasks([uuid.UUID(result.callbacks[role].id)]) == 0

    run_subtasks()
    assert tasks.noted == []


def test_what_is_revoked_over_the_limit_says_why() -> None:
    flaky_set("bad", "good", "good", max_failures=0)
    run_subtasks()
    reasons = SubtaskRecord.objects.members().filter(status="REVOKED").values_list("reason")
    assert set(reasons) == {("too many failures",)}


def test_under_always_eager_callbacks_follow_the_limit_and_the_revocation() -> None:
    with override_settings(TASKSETS={"ALWAYS_EAGER": True}):
        flaky_set("bad", "bad", "good", max_failures=0)
        assert tasks.noted == ["failure", "finish"]
        result = flaky_set()
        assert tasks.noted == ["failure", "finish", "success", "finish"]
        opened = TaskSet([], on_finish=tasks.note.subtask(("revoked",))).open().__enter__()
        opened.revoke()
    assert tasks.noted[-1] == "revoked"
    assert result.successful()


def test_the_sweep_leaves_an_open_set_that_was_just_added_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = TaskSet([]).open().__enter__()
    long_ago = timezone.now() - timedelta(days=9)
    TaskSetRecord.objects.update(enqueued_at=long_ago)
    unlocked = sweeping._unlocked

    def add_and_look(store: Any, ids: Any) -> Any:
        if list(ids) == [key_of(result)]:
            result.add(tasks.flaky.subtask((0, "good")))
        return unlocked(store, ids)

    monkeypatch.setattr(sweeping, "_unlocked", add_and_look)
    sweep(get_store())
    assert members(result) == ["READY"]
    assert result.record is not None
    assert result.record.is_open


def test_what_is_retried_while_it_is_pruned_or_forgotten_stays(meanwhile: Meanwhile) -> None:
    kept, alone = flaky_set("bad", "good"), tasks.flaky.delay(9, "bad")
    run_subtasks()
    tasks.mend()
    old = timezone.now() - timedelta(days=99)
    TaskSetRecord.objects.update(finished_at=old)
    SubtaskRecord.objects.update(finished_at=old)
    meanwhile.call(run_subtasks)
    retry_failed_set(key_of(kept))
    retry_subtasks([uuid.UUID(alone.id)])

    pruned = prune(Retention(successful=timedelta(days=30), others=timedelta(days=30)))

    assert (pruned.sets, pruned.subtasks) == (0, 0)
    assert kept.successful()
    assert alone.successful()


def test_slices_go_by_positions_and_leave_out_what_is_empty() -> None:
    result = flaky_set(*["good"] * 9)
    rows = SubtaskRecord.objects.filter(taskset_id=key_of(result))
    rows.exclude(position__in=(0, 2, 3, 8)).members().delete()

    parts = slices(get_store(), key_of(result), size=2)

    found = [list(part.order_by("position")) for part in parts]
    assert [[row.position for row in rows] for rows in found] == [[0], [2, 3], [8]]
