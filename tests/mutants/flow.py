"""Guards in the flow: enqueueing, recording, the end of a set."""

from __future__ import annotations

from typing import Final

from .mutant import ALL, CLAIMS, LOCKS, SERVERS, STEERING, TASKSETS, Mutant

MANY: Final = "tests/database/test_many_sets.py"
RECORDING: Final = "tests/database/test_recording.py"
HALF_WAY: Final = (f"{RECORDING}::test_what_stops_half_way_leaves_nothing",)
FIRST: Final = (f"{RECORDING}::test_of_two_outcomes_of_one_claim_the_first_counts",)
IS_FINISHED: Final = (f"{STEERING}::test_revoking_what_is_finished_changes_nothing",)
GOES_ON: Final = f"{TASKSETS}::test_a_member_that_goes_on_after_the_end_adds_nothing"
UNACKNOWLEDGED: Final = f"{CLAIMS}::test_a_commit_that_nobody_acknowledged"
STALE: Final = f"{CLAIMS}::test_a_stale_worker_and_the_one_that_took_over"
OPEN: Final = f"{TASKSETS}::test_an_open_set_does_not_finish_before_its_block"
SEALED: Final = f"{TASKSETS}::test_a_sealed_set_takes_no_more"
# A commit that nobody has asked for, in the middle of a transaction.
COMMIT: Final = "store.connection.connection.commit()"

ENQUEUEING: Final = (
    Mutant(
        "enqueued as a whole", "set, callbacks and members are one transaction",
        "enqueueing.py", "(store.run_statement if is_one_statement else store.run)(work)",
        "work()",
        (f"{TASKSETS}::test_a_taken_id_leaves_the_transaction_alive",),
    ),
    Mutant(
        "applied together", "many sets are one transaction",
        "bulk.py", "settled = store.run(work)", "settled = work()",
        (f"{MANY}::test_a_taken_id_is_named_and_leaves_the_transaction_alive",),
    ),
    Mutant(
        "applied together, empty", "of many sets those without members finish",
        "enqueueing.py", "if not record.total and", "if False and",
        (f"{MANY}::test_empty_ones_finish_at_once",),
    ),
    Mutant(
        "the caller's transaction", "what is enqueued is rolled back with the caller",
        "enqueueing.py",
        "settled = (store.run_statement if is_one_statement else store.run)(work)",
        "from tests.concurrency import Background\n"
        "            settled = Background(lambda: store.run(work)).join()",
        (f"{TASKSETS}::test_it_is_rolled_back_with_the_caller",), SERVERS,
    ),
    Mutant(
        "adding, seal", "a sealed set takes no more",
        "enqueueing.py", "takes_more = takes_more.filter(sealed_at=None)", "pass", (SEALED,),
    ),
    Mutant(
        "adding, status", "a finished set takes no more, not even from a member",
        "enqueueing.py", "takes_more = sets.running().filter(revoke_requested_at=None)",
        "takes_more = sets.filter(revoke_requested_at=None)", (f"{GOES_ON}[finish]",),
    ),
    Mutant(
        "adding, revocation", "a set that is being revoked takes no more, not even from a member",
        "enqueueing.py", "takes_more = sets.running().filter(revoke_requested_at=None)",
        "takes_more = sets.running()", (f"{GOES_ON}[revoke]",),
    ),
    Mutant(
        "sealing", "who seals a set asks whether it is over",
        "enqueueing.py", "return Settled()\n        settled = settle(store, [nothing(taskset_id)])",
        "return Settled()\n        settled = Settled()", (OPEN,),
    ),
    Mutant(
        "applying, saved", "of two that apply a saved set one does",
        "enqueueing.py", "status=TaskSetStatus.SAVED, discarded_at=None)", "discarded_at=None)",
        (f"{LOCKS}::TestHeldRows::test_of_two_that_apply_a_saved_set_one_does",), SERVERS,
    ),
    Mutant(
        "applying, deleted", "a saved set that is being deleted is not applied",
        "enqueueing.py", "status=TaskSetStatus.SAVED, discarded_at=None)",
        "status=TaskSetStatus.SAVED)",
        (f"{STEERING}::test_a_saved_set_is_applied_or_deleted",),
    ),
)  # fmt: skip

RECORDS: Final = (
    Mutant(
        "one transaction", "members, counts and callbacks are one transaction",
        "recording.py", "    recorded.settled = settle_counted(store, states)",
        f"    {COMMIT}\n    recorded.settled = settle_counted(store, states)",
        HALF_WAY, ALL,
    ),
    Mutant(
        "one transaction, callbacks", "the end of a set and its callbacks are one transaction",
        "completion.py", "        settled.released = release(store, settled.finished)",
        f"        {COMMIT}\n        settled.released = release(store, settled.finished)",
        HALF_WAY, ALL,
    ),
    Mutant(
        "counting what matched", "what was sent and did not match is not counted",
        "recording.py", "expected = consequences(written)", "expected = consequences(outcomes)",
        (STALE,),
    ),
    Mutant(
        "whole batches", "whether all that was sent was written as it is, is asked",
        "recording.py", "if set(map(id, written)) != set(map(id, outcomes)):",
        "if len(written) != len(outcomes):",
        (f"{RECORDING}::test_one_that_was_called_off_counts_as_that",),
    ),
    Mutant(
        "unacknowledged", "what an unacknowledged commit has written is recognised",
        "recording.py", "mine = store.recorded(worker_id, missing)", "mine = []",
        (UNACKNOWLEDGED,),
    ),
    Mutant(
        "unacknowledged, once", "what an unacknowledged commit has written is counted once",
        "recording.py", "store.count(expected.tallies())",
        "store.count(consequences(recorded.written).tallies())", (UNACKNOWLEDGED,),
    ),
    Mutant(
        "first outcome", "of two outcomes of one claim the first counts",
        "recording.py", "for outcome in reversed(outcomes)}", "for outcome in outcomes}",
        FIRST,
    ),
    Mutant(
        "one outcome", "a batch has one outcome for a subtask",
        "recording.py", "if len({outcome.claimed.id.int for outcome in outcomes}) != len(wanted):",
        "if False:", FIRST,
    ),
    Mutant(
        "refusals", "what the database refuses does not take the others with it",
        "recording.py", "if store.is_refusal(error):", "if False:",
        ("tests/database/test_refusals.py",), SERVERS,
    ),
    Mutant(
        "over, seal", "an open set does not end",
        "completion.py", "        and state.sealed_at is not None\n        and state.status",
        "        and state.status", (OPEN,),
    ),
    Mutant(
        "over, remaining", "a set with remaining members does not end",
        "completion.py", "state.remaining == 0\n", "state.remaining >= 0\n",
        (f"{TASKSETS}::test_on_success_is_called_with_the_results",),
    ),
    Mutant(
        "over, status", "a set ends once",
        "completion.py", "\n        and state.status == TaskSetStatus.RUNNING", "", IS_FINISHED,
    ),
    Mutant(
        "on_finish, order", "on_finish is released once the callback before it has ended",
        "completion.py", "callbacks.get(due) or callbacks.get(Role.ON_FINISH)",
        "callbacks.get(Role.ON_FINISH) or callbacks.get(due)",
        IS_FINISHED,
    ),
)  # fmt: skip

FLOW: Final = (*ENQUEUEING, *RECORDS)
