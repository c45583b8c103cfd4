"""Guards in worker processes: who may live, who may go on, what one task may do to the next."""

from __future__ import annotations

from typing import Final

from .mutant import POSTGRESQL, Mutant

ENDS: Final = "tests/processes/test_ends.py"
FAULTS: Final = "tests/processes/test_faults.py"
USERS: Final = "tests/processes/test_users.py"
LOAD: Final = "tests/unit/test_load.py"
EXECUTION: Final = "tests/database/test_execution.py"
PARTS: Final = "tests/database/test_worker_parts.py"
DECLARED_DEAD: Final = f"{ENDS}::test_one_that_was_declared_dead_gives_way"

WORKERS: Final = (
    Mutant(
        "going on, for a while", "what is more urgent is claimed soon, however much else there is",
        "worker/claimer.py", " and time.monotonic() < self._looks_around_at", "",
        (f"{PARTS}::test_where_there_is_much_of_one_kind_a_claim_goes_on",),
    ),
    Mutant(
        "the dead are told", "a worker that is not confirmed learns of it",
        "worker/pulse.py", "self._board.confirm(place, DEAD)", "pass",
        ("tests/database/test_sweeping.py::test_who_is_not_confirmed_is_told_so_at_once",),
    ),
    Mutant(
        "unconfirmed", "a worker that nobody confirms ends itself",
        "worker/process.py", "if not self._board.is_known(self._place):", "if False:",
        (DECLARED_DEAD,),
    ),
    Mutant(
        "unconfirmed, claims", "a worker that nobody confirms claims nothing",
        "worker/claimer.py", "if not self._board.is_known(self._place):", "if False:",
        (f"{PARTS}::test_who_is_not_known_to_live_claims_nothing",),
    ),
    Mutant(
        "told of more", "a claim that was told of more asks for it",
        "worker/claimer.py", "self._is_dry = not (is_told or ", "self._is_dry = not (",
        (f"{PARTS}::test_where_nothing_was_left_a_claim_waits_until_somebody_tells_of_more",),
    ),
    Mutant(
        "expiry", "what has expired since its claim is not executed",
        "execution.py", "if claimed.expires_at is not None and claimed.expires_at <=",
        "if claimed.expires_at is None and claimed.enqueued_at >",
        (f"{EXECUTION}::test_what_has_expired_by_the_databases_clock_is_not_called",),
    ),
    Mutant(
        "revoked before it begins", "what has been revoked since its claim is not executed",
        "execution.py", "    if worker.is_revoked(claimed.id):", "    if False:",
        ("tests/unit/test_execution.py::test_one_that_is_revoked_before_it_begins_is_not_called",),
    ),
    Mutant(
        "claimed again", "what a worker holds by a new claim is not dropped with the old one",
        "worker/load.py", "if held is not None and held.claims != claimed.claims:", "if False:",
        (f"{LOAD}::test_one_that_is_claimed_again_is_not_dropped_with_its_former_claim",),
    ),
    Mutant(
        "mourning", "a burst is not over before what the dead held is given back",
        "worker/claimer.py", "if self._board.is_mourning or not self", "if not self",
        (f"{ENDS}::test_a_burst_does_not_end_without_what_a_killed_process_held",),
    ),
    Mutant(
        "lifeline", "children end with their supervisor",
        "worker/process.py", "return self._lifeline in readable", "return False",
        (f"{ENDS}::test_children_end_with_their_supervisor",),
    ),
    Mutant(
        "deaths are reported", "what a dead process held is given back at once",
        "worker/heart.py", "self._rescuer.bury(message)", "pass",
        (f"{ENDS}::test_what_a_killed_process_held_is_executed_elsewhere",),
    ),
    Mutant(
        "deaths are remembered", "a new heart learns of deaths that the last one has not got to",
        "worker/supervisor.py", "for death in self._deaths:", "for death in ():",
        (f"{ENDS}::test_deaths_in_the_absence_of_a_heart_are_known_to_the_next",),
    ),
    Mutant(
        "another heart", "a heart that is gone is replaced",
        "worker/supervisor.py", "if self._heart is None and self._heart_due <= now:",
        "if self._heart is None and self._to_heart is None:",
        (f"{ENDS}::test_the_heart_is_replaced",),
    ),
    Mutant(
        "suspects are alone", "what was executing when a process died is executed alone",
        "worker/executor.py", "if claimed.crashes:", "if False:",
        (f"{FAULTS}::test_a_suspect_is_executed_alone",),
    ),
    Mutant(
        "connections, after", "a task leaves its connections in order to the next one",
        "worker/executor.py", "            clean_up()\n            last =", "            last =",
        (f"{FAULTS}::test_the_next_task_finds_thread_and_connection_in_order",),
    ),
    Mutant(
        "connections, open transaction", "a transaction that a task left open is rolled back",
        "worker/connections.py", "if connection.in_atomic_block:", "if False:",
        (f"{EXECUTION}::test_a_transaction_that_was_left_open_is_rolled_back",),
    ),
    Mutant(
        "connections, unusable", "a connection that a task broke is closed",
        "worker/connections.py", "connection.close_if_unusable_or_obsolete()", "pass",
        (f"{EXECUTION}::test_so_is_one_without_autocommit",
         f"{FAULTS}::test_the_next_task_finds_thread_and_connection_in_order"),
    ),
    Mutant(
        "hooks, logged", "a hook that raises changes nothing",
        "hooks.py", "except Exception:", "except ZeroDivisionError:",
        ("tests/unit/test_definitions.py::test_a_raising_hook_is_logged_and_the_others_are_called",),
    ),
    Mutant(
        "hooks, thread", "a hook that raises SystemExit does not end its thread",
        "worker/executor.py", "except BaseException:  # a hook's SystemExit",
        "except ZeroDivisionError:  # a hook's SystemExit",
        (f"{USERS}::test_a_hook_that_exits_leaves_the_thread_to_the_next_one",),
    ),
    Mutant(
        "time limit", "what is over its time limit ends with its process",
        "worker/limits.py", "if running.is_over(running.hard, now):", "if False:",
        (f"{USERS}::test_a_time_limit_ends_what_does_not_end_itself",),
    ),
    Mutant(
        "time limit, supervisor", "so does what keeps its process from looking at the time",
        "worker/supervisor.py", "            if overdue:", "            if False:",
        (f"{USERS}::test_a_time_limit_ends_what_keeps_its_process_from_looking",),
    ),
    Mutant(
        "atomic task", "the writes of a task that failed are rolled back",
        "atomically.py", "SubtaskStatus.SUCCESSFUL:\n                raise _RollBack",
        "SubtaskStatus.SUCCESSFUL:\n                return outcome",
        (f"{EXECUTION}::test_a_failed_one_leaves_no_writes_and_is_recorded_later",),
    ),
    Mutant(
        "atomic task, late", "and of one whose subtask is somebody else's",
        "atomically.py", "if not recorded.written:", "if False:",
        (f"{EXECUTION}::test_one_whose_subtask_is_somebody_elses_leaves_no_writes",),
    ),
    Mutant(
        "a claim without an answer", "what it has brought is taken over",
        "worker/claimer.py", "if not self._is_unsure:", "if True:",
        (f"{PARTS}::test_a_claim_without_an_answer_is_taken_over",),
    ),
    Mutant(
        "broken connections", "recording waits for a database that is away",
        "worker/recorder.py", "            time.sleep(delay)\n            delay =",
        "            return Recorded()\n            delay =",
        (f"{FAULTS}::test_connections_may_break_at_any_time",), POSTGRESQL,
    ),
)  # fmt: skip
