"""Guards in what is done about sets and workers: steering, rescue, the sweep."""

from __future__ import annotations

from typing import Final

from .mutant import CLAIMS, LOCKS, SERVERS, STEERING, Mutant

SWEEPING: Final = "tests/database/test_sweeping.py"
BLAMED: Final = f"{SWEEPING}::test_only_what_was_alone_or_a_suspect_is_blamed_for_a_crash"
IS_FINISHED: Final = (f"{STEERING}::test_revoking_what_is_finished_changes_nothing",)
STALE: Final = f"{CLAIMS}::test_a_stale_worker_and_the_one_that_took_over"
DEAD: Final = f"{CLAIMS}::test_who_is_known_to_be_dead_is_rescued_before_others_are_told"
GENERATION: Final = (
    f"{STEERING}::test_retrying_a_finished_set_begins_a_generation_with_callbacks_of_its_own",
)
PASSES: Final = (f"{LOCKS}::TestHeldRows::test_steering_passes_over_what_is_held",)
# A commit that nobody has asked for, in the middle of a transaction.
COMMIT: Final = "store.connection.connection.commit()"

STEERS: Final = (
    Mutant(
        "retry, generation", "a finished set runs again in a new generation",
        "steering.py", "generation = state.generation + 1\n",
        "generation = state.generation\n", GENERATION,
    ),
    Mutant(
        "retry, members", "retried members of a finished set belong to the new generation",
        "steering.py", '"generation": state.generation + is_over,',
        '"generation": state.generation,', GENERATION,
    ),
    Mutant(
        "retry, callbacks", "a new generation has callbacks of its own",
        "steering.py", "if state.has_callbacks:", "if False:", GENERATION,
    ),
    Mutant(
        "retry, deletion", "what is being deleted is not retried",
        "steering.py", "state.discarded_at is not None:\n        return taken",
        "False:\n        return taken",
        (f"{STEERING}::test_what_is_being_deleted_is_not_retried",),
    ),
    Mutant(
        "retry, outcome", "a callback is retried only if its set came to its outcome",
        "steering.py", ".exclude(not_needed)", "",
        (f"{STEERING}::test_a_callback_for_another_outcome_cannot_be_retried",),
    ),
    Mutant(
        "retry, too early", "a callback is retried only once its set has ended",
        "steering.py", "rows.filter(generation__lte=newest)", "rows",
        (f"{STEERING}::test_a_callback_that_its_set_has_not_come_to_cannot_be_retried",),
    ),
    Mutant(
        "retry, at once", "all that is retried is taken back in one transaction",
        "steering.py", "        _take_back_rows(store, part, again, taken)\n    if",
        "        _take_back_rows(store, part, again, taken)\n"
        f"        {COMMIT}\n    if",
        (f"{STEERING}::test_many_that_are_retried_are_taken_back_at_once",),
    ),
    Mutant(
        "revocation, mark", "a revocation stops where the set is retried",
        "control.py", "_revoke(store, ids, reason) if _is_marked(store, taskset_id) else None",
        "_revoke(store, ids, reason)",
        (f"{STEERING}::test_a_revocation_stops_where_the_set_is_retried",),
    ),
    Mutant(
        "revocation, status", "a finished set is not marked",
        "control.py",
        "running = TaskSetRecord.objects.using(store.alias).running()\n    store.run(",
        "running = TaskSetRecord.objects.using(store.alias).all()\n    store.run(", IS_FINISHED,
    ),
    Mutant(
        "pause, mark", "a pause stops where the set is resumed, and the reverse",
        "pausing.py", "if state is None or (state.paused_at is not None) != paused:",
        "if state is None:",
        (f"{STEERING}::test_a_pause_and_a_resumption_stop_where_the_other_has_come",),
    ),
    Mutant(
        "pause, held", "a pause passes over members that somebody has locked",
        "pausing.py", "store.locked(members, skip=True)", "store.locked(members, skip=False)",
        PASSES, SERVERS,
    ),
    Mutant(
        "retry, held", "a retry passes over members that somebody has locked",
        "steering.py", "store.locked(rows, skip=True)", "store.locked(rows, skip=False)",
        PASSES, SERVERS,
    ),
    Mutant(
        "deletion, unfinished", "an unfinished set is not deleted",
        "control.py", "            return False\n        _refuse_unfinished(store, taskset_id)\n",
        "            return False\n",
        ("tests/database/test_results.py::test_forget_keeps_the_counts_and_delete_does_not",),
    ),
)  # fmt: skip

REPAIRS: Final = (
    Mutant(
        "rescue of the dead alone", "what a living worker holds is not given back",
        "maintenance.py", "running.filter(~Exists(alive)).order_by", "running.order_by", (DEAD,),
    ),
    Mutant(
        "rescue of the lost", "a worker that is marked lost does not live",
        "maintenance.py", 'filter(id=OuterRef("worker_id"), lost_at=None)',
        'filter(id=OuterRef("worker_id"))', (STALE,),
    ),
    Mutant(
        "suspects", "a crash counts when one subtask was alone, or a suspect",
        "maintenance.py", "counts = alone or claimed.crashes > 0", "counts = True",
        (BLAMED,),
    ),
    Mutant(
        "suspects by their number", "one of several that were executing is not blamed",
        "maintenance.py", "alone=len(crashed) == 1", "alone=True", (BLAMED,),
    ),
    Mutant(
        "heartbeat of the lost", "who was declared dead is not confirmed any more",
        "maintenance.py", "filter(id__in=ids, lost_at=None)", "filter(id__in=ids)",
        (f"{SWEEPING}::test_who_was_declared_dead_lives_no_more",),
    ),
    Mutant(
        "silence", "who is silent for longer than the lease is declared dead, and no other",
        "maintenance.py", "lost_at=None, heartbeat_at__lt=deadline", "lost_at=None",
        (f"{SWEEPING}::test_who_is_silent_for_longer_than_the_lease_is_declared_dead",),
    ),
    Mutant(
        "crashes", "a crash that counts is limited in number",
        "maintenance.py", "claimed.crashes + 1 < current().MAX_CRASHES", "True",
        (f"{CLAIMS}::test_two_rescues_at_once",),
    ),
    Mutant(
        "sweep: counts", "wrong counts are repaired",
        "sweeping.py", "repairs = _each(store, _miscounted(store), partial(_recount, store))",
        "repairs = 0", (f"{SWEEPING}::test_wrong_counts_are_set_right",),
    ),
    Mutant(
        "sweep: ends", "a set that is over and not finished is finished",
        "sweeping.py", "    repairs += _each(store, _stalled(store), partial(_finish, store))\n",
        "",
        (f"{SWEEPING}::test_what_is_over_is_finished",),
    ),
    Mutant(
        "sweep: callbacks", "callbacks that were not released are",
        "sweeping.py", "repairs += _each(store, _unreleased(store), partial(_release, store))",
        "pass", (f"{SWEEPING}::test_what_was_not_released_is",),
    ),
    Mutant(
        "sweep: announcements", "taskset_finished that was not acknowledged is sent again",
        "sweeping.py", "    _announce_again(store)\n    _each", "    _each",
        (f"{SWEEPING}::test_what_was_not_acknowledged_is_sent_again_after_a_while",),
    ),
    Mutant(
        "sweep: revocations", "a revocation that was cut short goes on",
        "sweeping.py", "    _each(store, _marked(store), partial(revoke_rest, store))\n", "",
        (f"{SWEEPING}::test_a_revocation_that_was_cut_short_goes_on",),
    ),
    Mutant(
        "sweep: pauses", "a pause that was cut short goes on",
        "sweeping.py",
        "    _each(store, _half_paused(store), lambda key: list(hold_back(store, key)))\n", "",
        (f"{STEERING}::test_the_sweep_ends_a_pause_that_was_cut_short",),
    ),
    Mutant(
        "sweep: resumptions", "a resumption that was cut short goes on",
        "sweeping.py",
        "    _each(store, _half_resumed(store), lambda key: list(let_go(store, key)))\n", "",
        (f"{STEERING}::test_the_sweep_ends_a_resumption_that_was_cut_short",),
    ),
    Mutant(
        "sweep: locks", "what somebody has locked is left to the next sweep",
        "sweeping.py", "if _unlocked(store, [key]):", "if True:",
        (f"{LOCKS}::TestHeldRows::test_a_sweep_leaves_out_what_is_held",),
        SERVERS,
    ),
)  # fmt: skip

UPKEEP: Final = (*STEERS, *REPAIRS)
