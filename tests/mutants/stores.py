"""Guards in the store: the fence, the claim, the order of locks, what is tried again."""

from __future__ import annotations

from typing import Final

from .mutant import CLAIMS, LOCKS, MARIADB, POSTGRESQL, SERVERS, SQLITE, STORE, Mutant

FENCE: Final = f"{STORE}::TestFinish::test_only_the_newest_fence_may_write"
NATIVE: Final = (f"{FENCE}[native-SUCCESSFUL]",)
PORTABLE: Final = (f"{FENCE}[portable-SUCCESSFUL]", f"{FENCE}[portable-READY]")
SOMEBODY_ELSES: Final = f"{STORE}::TestFinishing::test_one_that_is_somebody_elses"
MIXED: Final = f"{STORE}::TestFinish::test_of_a_batch_what_matches_is_written"
OWN_FENCES: Final = f"{STORE}::TestClaim::test_each_claim_has_a_fence_of_its_own"
PASSED_OVER: Final = f"{STORE}::TestClaim::test_locked_rows_are_passed_over"
CLOSED: Final = (f"{STORE}::TestClosing::test_only_what_is_over_is_closed",)
HELD: Final = f"{LOCKS}::TestHeldRows"
ORDER: Final = f"{HELD}::test_rows_are_locked_in_the_order_of_their_ids"
OUT_OF_REACH: Final = (
    "tests/database/test_connections.py::test_a_transaction_out_of_reach_ends_with_the_lease",
)
DEADLOCK: Final = (f"{HELD}::test_a_deadlock_is_resolved_by_another_try",)
PARKED: Final = (f"{HELD}::test_a_held_set_is_parked_and_the_others_are_recorded",)
ONCE: Final = f"{STORE}::TestTransactions"

FENCES: Final = (
    Mutant(
        "fence, worker: SQLite", "who holds a row when its success is recorded",
        "store/sqlite.py", "AND +worker_id = %s", "AND %s <> ''", NATIVE,
    ),
    Mutant(
        "fence, worker: PostgreSQL, many", "who holds a row when its success is recorded",
        "store/postgresqlstatements.py", "'RUNNING' AND worker_id = %(worker_id)s\n", "'RUNNING'\n",
        NATIVE, POSTGRESQL,
    ),
    Mutant(
        "fence, status: PostgreSQL, many", "a success is recorded on what is RUNNING only",
        "store/postgresqlstatements.py", "::uuid[]) AND status = 'RUNNING' AND", "::uuid[]) AND",
        NATIVE, POSTGRESQL,
    ),
    Mutant(
        "fence, worker: PostgreSQL", "who holds a row when its success is recorded",
        "store/postgresqlstatements.py", " AND worker_id IS NOT DISTINCT FROM %(worker_id)s", "",
        NATIVE, POSTGRESQL,
    ),
    Mutant(
        "fence, worker: portable", "who holds a row when anything else is",
        "store/portable.py", "id__in=ids, status=SubtaskStatus.RUNNING, worker_id=worker_id",
        "id__in=ids, status=SubtaskStatus.RUNNING", (*NATIVE, *PORTABLE),
    ),
    Mutant(
        "fence, worker: MySQL", "who holds a row when anything is recorded",
        "store/mysql.py", "AND worker_id = %s ORDER BY", "AND %s IS NOT NULL ORDER BY", NATIVE,
        MARIADB,
    ),
    Mutant(
        "fence, status: MySQL", "whether a row still runs",
        "store/mysql.py", "AND status = 'RUNNING' AND worker_id", "AND worker_id", NATIVE, MARIADB,
    ),
    Mutant(
        "fence, claims: SQLite", "which claim a success is the end of",
        "store/sqlite.py", " AND claims = outcome.value ->> 1", "", NATIVE,
    ),
    Mutant(
        "fence, claims: PostgreSQL", "which claim a success is the end of",
        "store/postgresqlstatements.py", " AND s.claims = outcome.claims", "", NATIVE, POSTGRESQL,
    ),
    Mutant(
        "fence, claims: portable", "which claim anything else is the end of",
        "store/portable.py", "if by_id[key].claimed.claims == claims:", "if claims:",
        (*NATIVE, *PORTABLE), (*SQLITE, *MARIADB),
    ),
    Mutant(
        "fence, status: SQLite", "a success is recorded on what is RUNNING only",
        "store/sqlite.py", "AND +status = 'RUNNING' AND", "AND", NATIVE,
    ),
    Mutant(
        "fence, status: PostgreSQL", "a success is recorded on what is RUNNING only",
        "store/postgresqlstatements.py", '"(status = \'RUNNING\') IS TRUE AND worker', '"worker',
        NATIVE, POSTGRESQL,
    ),
    Mutant(
        "fence, status: portable", "so is anything else",
        "store/portable.py", "id__in=ids, status=SubtaskStatus.RUNNING, worker_id=worker_id",
        "id__in=ids, worker_id=worker_id", (*NATIVE, *PORTABLE),
    ),
    Mutant(
        "matched rows: SQLite", "how many rows matched is asked",
        "store/sqlite.py", "if cursor.rowcount != count:", "if cursor.rowcount < 0:",
        (SOMEBODY_ELSES,),
    ),
    Mutant(
        "matched rows: PostgreSQL", "how many rows matched is asked",
        "store/postgresql.py", "if cursor.rowcount == len(outcomes):", "if outcomes:", (MIXED,),
        POSTGRESQL,
    ),
    Mutant(
        "unacknowledged, worker", "whose fence it is under which a result is recorded already",
        "store/portable.py", ".finished().filter(id__in=batch, worker_id=worker_id)",
        ".finished().filter(id__in=batch)", (f"{STORE}::TestRecorded",),
    ),
)  # fmt: skip

CLAIMING: Final = (
    Mutant(
        "a new fence: SQLite", "claims + 1 at each claim",
        "store/sqlite.py", "- 1) + 1, claimed_at", "- 1), claimed_at", (OWN_FENCES,),
    ),
    Mutant(
        "a new fence: PostgreSQL", "claims + 1 at each claim",
        "store/postgresqlstatements.py", "- 1) + 1, claimed_at", "- 1), claimed_at", (OWN_FENCES,),
        POSTGRESQL,
    ),
    Mutant(
        "a new fence: MariaDB", "claims + 1 at each claim",
        "store/mysql.py", "- 1) + 1, claimed_at", "- 1), claimed_at", (OWN_FENCES,), MARIADB,
    ),
    Mutant(
        "a new fence: portable", "claims + 1 at each claim",
        "store/portable.py", 'Value(LAST_CLAIM - 1)) + 1', 'Value(LAST_CLAIM - 1))', (OWN_FENCES,),
    ),
    Mutant(
        "ready at a claim by id", "only what is READY is claimed",
        "store/portable.py", "self.locked(self.subtasks.ready().filter(id__in=batch)",
        "self.locked(self.subtasks.filter(id__in=batch)",
        (f"{STORE}::TestClaim::test_only_what_is_ready_is_claimed",),
    ),
    Mutant(
        "locked candidates: PostgreSQL", "a claim locks what it takes",
        "store/postgresqlstatements.py", "FOR NO KEY UPDATE SKIP LOCKED\n    ) probe", ") probe",
        (PASSED_OVER, f"{CLAIMS}::test_each_subtask_is_claimed_once"), POSTGRESQL,
    ),
    Mutant(
        "locked candidates: MariaDB", "a claim locks what it takes",
        "store/mysql.py", "LIMIT %s FOR UPDATE SKIP LOCKED", "LIMIT %s",
        (PASSED_OVER, f"{CLAIMS}::test_each_subtask_is_claimed_once"), MARIADB,
    ),
    Mutant(
        "skip locked: PostgreSQL", "a claim passes over what others have locked",
        "store/postgresqlstatements.py", "SKIP LOCKED\n    ) probe", ") probe",
        (PASSED_OVER,), POSTGRESQL,
    ),
    Mutant(
        "skip locked: MariaDB", "a claim passes over what others have locked",
        "store/mysql.py", "LIMIT %s FOR UPDATE SKIP LOCKED", "LIMIT %s FOR UPDATE",
        (PASSED_OVER,), MARIADB,
    ),
    Mutant(
        "skip locked: portable", "a claim passes over what others have locked",
        "store/portable.py", "skip_locked=True, no_key=", "no_key=", (PASSED_OVER,), SERVERS,
    ),
)  # fmt: skip

SETS: Final = (
    Mutant(
        "closing, seal: written out", "only a sealed set is given its final status",
        "store/endings.py", " AND remaining = 0 AND sealed_at IS NOT NULL", " AND remaining = 0",
        CLOSED,
    ),
    Mutant(
        "closing, remaining: written out", "only a set without remaining members is given one",
        "store/endings.py", " AND remaining = 0 AND", " AND", CLOSED,
    ),
    Mutant(
        "closing, status: written out", "only a RUNNING set is given one",
        "store/endings.py", " AND status = 'RUNNING' AND remaining", " AND remaining", CLOSED,
    ),
    Mutant(
        "releasing, status: written out", "only a WAITING callback is released",
        "store/endings.py", "'READY' END\n    WHERE id {{among}} AND status = 'WAITING'",
        "'READY' END\n    WHERE id {{among}}",
        (f"{STORE}::TestClosing::test_callbacks_are_released_or_not_needed",),
    ),
    Mutant(
        "releasing, lookup: written out", "only a WAITING callback is looked for",
        "store/endings.py", "position < 0 AND status = 'WAITING' ORDER", "position < 0 ORDER",
        (f"{STORE}::TestClosing::test_waiting_callbacks_are_those_of_the_generation",),
    ),
    Mutant(
        "closing, seal", "only a sealed set is given its final status",
        "store/portable.py", "id__in=batch, remaining=0, sealed_at__isnull=False",
        "id__in=batch, remaining=0", CLOSED,
    ),
    Mutant(
        "closing, remaining", "only a set without remaining members is given one",
        "store/portable.py", "id__in=batch, remaining=0, sealed_at__isnull=False",
        "id__in=batch, sealed_at__isnull=False", CLOSED,
    ),
    Mutant(
        "closing, status", "only a RUNNING set is given one",
        "store/portable.py", "self.tasksets.running().filter(\n                    id__in=batch",
        "self.tasksets.filter(\n                    id__in=batch", CLOSED,
    ),
    Mutant(
        "releasing, status", "only a WAITING callback is released",
        "store/portable.py", "waiting = self.subtasks.filter(status=SubtaskStatus.WAITING)",
        "waiting = self.subtasks",
        (f"{STORE}::TestClosing::test_callbacks_are_released_or_not_needed",),
    ),
    Mutant(
        "releasing, lookup", "only a WAITING callback is looked for",
        "store/portable.py", "self.callbacks_of(batch).filter(status=SubtaskStatus.WAITING)",
        "self.callbacks_of(batch)",
        (f"{STORE}::TestClosing::test_waiting_callbacks_are_those_of_the_generation",),
    ),
    Mutant(
        "revoking, status", "only what no worker holds, and is not finished, is revoked",
        "store/portable.py", "self.locked(self.subtasks.pending().filter(id__in=batch)",
        "self.locked(self.subtasks.filter(id__in=batch)",
        (f"{STORE}::TestRevoke::test_what_no_worker_holds_is_revoked",),
    ),
    Mutant(
        "revoking, held", "a revocation passes over what others have locked",
        "store/portable.py", "self.locked(self.subtasks.pending().filter(id__in=batch), skip=True)",
        "self.locked(self.subtasks.pending().filter(id__in=batch), skip=False)",
        (f"{STORE}::TestRevoke::test_locked_rows_are_passed_over",), POSTGRESQL,
    ),
    Mutant(
        "called off", "what is revoked is not given back",
        "store/portable.py",
        "if outcome.claimed.id in flagged or marks.get(key) is not None:",
        "if False:",
        (f"{STORE}::TestFinish::test_what_is_revoked_is_not_given_back",),
    ),
)  # fmt: skip

LOCKING: Final = (
    Mutant(
        "order of locks: portable", "rows are locked in the order of their ids",
        "store/transactions.py", 'queryset = queryset.order_by("id")', "pass",
        (f"{ONCE}::test_rows_are_locked_in_the_order_of_ids",),
    ),
    Mutant(
        "order of locks: members", "members are locked in the order of their ids",
        "store/postgresqlstatements.py", "AND worker_id = %(worker_id)s\n        ORDER BY id",
        "AND worker_id = %(worker_id)s\n       ", (f"{ORDER}[SUCCESSFUL-members]",), POSTGRESQL,
    ),
    Mutant(
        "order of locks: sets", "sets are locked in the order of their ids",
        "store/postgresqlstatements.py", "WHERE id = ANY (%(ids)b::uuid[]) ORDER BY id",
        "WHERE id = ANY (%(ids)b::uuid[])", (f"{ORDER}[SUCCESSFUL-sets]",), POSTGRESQL,
    ),
    Mutant(
        "order of locks: members first", "members are locked before their sets",
        "recording.py", "    written = store.finish(worker_id, outcomes)\n",
        "    from .completion import locked_state\n"
        "    for outcome in outcomes: locked_state(store, outcome.claimed.taskset_id)\n"
        "    written = store.finish(worker_id, outcomes)\n",
        (f"{ORDER}[SUCCESSFUL-members]",), SERVERS,
    ),
    Mutant(
        "another try", "a transaction that a deadlock has ended is run again",
        "store/transactions.py", "(in_transaction, 1 if self.is_nested else TRIES)",
        "(in_transaction, 1)",
        (f"{ONCE}::test_a_deadlock_is_tried_again",),
    ),
    Mutant(
        "no other try inside", "what is inside of the caller's transaction is not",
        "store/transactions.py", "(in_transaction, 1 if self.is_nested else TRIES)",
        "(in_transaction, TRIES)",
        (f"{ONCE}::test_not_in_the_callers_transaction",),
    ),
    Mutant(
        "deadlock: PostgreSQL", "what a deadlock looks like",
        "store/postgresql.py", "in (DEADLOCK, SERIALIZATION)", "in (SERIALIZATION,)", DEADLOCK,
        POSTGRESQL,
    ),
    Mutant(
        "deadlock: MariaDB", "what a deadlock looks like",
        "store/mysql.py", "in ((DEADLOCK,), (CHANGED_SINCE_READ,))", "in ((CHANGED_SINCE_READ,),)",
        DEADLOCK, MARIADB,
    ),
    Mutant(
        "lock timeout: PostgreSQL", "our connections wait for a lock only so long",
        "store/postgresql.py", "SET lock_timeout = '1s'", "SET lock_timeout = 0", PARKED,
        POSTGRESQL,
    ),
    Mutant(
        "lock timeout: MariaDB", "our connections wait for a lock only so long",
        "store/mysql.py", "innodb_lock_wait_timeout = 1", "innodb_lock_wait_timeout = 50", PARKED,
        MARIADB,
    ),
    Mutant(
        "idle transaction: PostgreSQL", "what a worker out of reach holds is let go of",
        "store/postgresql.py", "timeout = '{lease_in_seconds()}s'", "timeout = 0", OUT_OF_REACH,
        POSTGRESQL,
    ),
    Mutant(
        "idle transaction: MariaDB", "what a worker out of reach holds is let go of",
        "store/mysql.py", "[lease_in_seconds()]", "[0]", OUT_OF_REACH, MARIADB,
    ),
    Mutant(
        "parking", "what somebody holds does not hold up the others",
        "recording.py", "elif store.is_lock_timeout(error):", "elif False:", PARKED, SERVERS,
    ),
    Mutant(
        "write lock: SQLite", "a transaction has the write lock before it reads",
        "store/sqlite.py", "if not begins_locked:", "if False:",
        (f"{LOCKS}::TestOneWriter::test_it_has_it_before_anything_else_happens",),
    ),
    Mutant(
        "turns, forked", "what a task has forked waits for no thread that is not there",
        "store/onewriter.py", "os.register_at_fork(after_in_child=self._renew)", "pass",
        ("tests/unit/test_onewriter.py",),
    ),
    Mutant(
        "turns", "threads take turns to ask for SQLite's lock",
        "store/onewriter.py", "            turn.acquire(timeout=PATIENCE)\n", "",
        (f"{LOCKS}::TestOneWriter::test_it_waits_for_its_turn_and_what_is_in_it_does_not",),
    ),
    Mutant(
        "turns, receivers", "a turn ends with the commit, before receivers are called",
        "store/sqlite.py", "transaction.on_commit(end_turn, using=self.alias)", "pass",
        (f"{LOCKS}::TestOneWriter::test_receivers_of_signals_are_called_after_it",),
    ),
    Mutant(
        "turns, patience", "who has waited long for its turn goes ahead",
        "store/onewriter.py", "turn.acquire(timeout=PATIENCE)", "turn.acquire()",
        ("tests/unit/test_onewriter.py",),
    ),
)  # fmt: skip

STORES: Final = (*FENCES, *CLAIMING, *SETS, *LOCKING)
