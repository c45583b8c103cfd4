"""Executes subtasks in the caller's own thread, on its own connection, until none is left: what
ALWAYS_EAGER and tests use. The same claiming, executing and recording as in a worker."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from django.db import DatabaseError, connections, transaction

from .announcing import Announcer, run_hooks
from .conf import current
from .control import revoke_rest
from .execution import Worker, execute
from .ids import new_id
from .maintenance import beat, register, retire
from .models import SubtaskRecord
from .recording import Recorded, record
from .statuses import SubtaskStatus
from .store.contract import Claimed, Outcome, Store

logger = logging.getLogger("django_tasksets")

PROMOTED_AT_ONCE = 1000
# How often, and after how many seconds, a result is recorded again whose rows somebody holds.
TRIES = 100
PAUSE = 0.05


def ready_callbacks(store: Store, taskset_id: uuid.UUID) -> list[uuid.UUID]:
    """The callbacks of a set that can be claimed now."""
    callbacks = SubtaskRecord.objects.using(store.alias).callbacks().ready().order_by()
    return list(callbacks.filter(taskset_id=taskset_id).values_list("id", flat=True))


class Drain:
    """A worker without processes, threads or a heart. It claims one subtask at a time, so that a
    revocation, or a subtask of a higher priority, is heeded by the very next one."""

    def __init__(self, store: Store, *, is_eager: bool = False, propagates: bool = False) -> None:
        self._store = store
        self._worker = Worker(
            store=store,
            id=new_id(),
            hostname=socket.gethostname(),
            is_eager=is_eager,
            is_revoked=self._is_revoked,
        )
        self._announcer = Announcer(store)
        self._propagates = propagates
        self._error: BaseException | None = None
        self._confirmed_at = 0.0
        self.executed = 0

    def __enter__(self) -> Self:
        """Register as a worker, so that nobody takes the subtasks for those of a dead one."""
        self._register()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            retire(self._store, self._worker.id)
        except DatabaseError as error:
            if kind is None:
                raise
            # The transaction is broken, and what broke it is being raised.
            logger.warning("worker row left behind id=%s error=%r", self._worker.id, error)

    def run(self, ids: Sequence[uuid.UUID]) -> None:
        """Execute those of `ids` that are READY, and whatever their ends release.

        With `propagates`, the first exception is raised when all is recorded.
        """
        pending = list(ids)
        while pending:
            released: list[uuid.UUID] = []
            for key in pending:
                self._confirm()
                for claimed in self._store.claim_ids(self._worker.id, [key]):
                    released += self._one(claimed)
            pending = released
        if self._propagates and self._error is not None:
            raise self._error

    def run_all(self, queues: Sequence[str] = (), limit: int | None = None) -> None:
        """Execute what is due in the queues (by default in all), at most `limit` subtasks."""
        self._store.promote(PROMOTED_AT_ONCE)
        while limit is None or self.executed < limit:
            self._confirm()
            claimed = self._store.claim(self._worker.id, queues, 1)
            if not claimed and not self._store.promote(PROMOTED_AT_ONCE):
                return
            for one in claimed:
                self._one(one)

    def _register(self) -> None:
        register(self._store, self._worker.id, queues=(), pid=os.getpid())
        self._confirmed_at = time.monotonic()

    def _confirm(self) -> None:
        """Be known to be alive while the next subtask is executed."""
        if time.monotonic() - self._confirmed_at < current().LEASE / 4:
            return
        self._confirmed_at = time.monotonic()
        if not beat(self._store, [self._worker.id]):
            # Declared dead, while a subtask took longer than the lease. Begin anew.
            self._worker = replace(self._worker, id=new_id())
            self._register()

    def _is_revoked(self, subtask_id: uuid.UUID) -> bool:
        held = self._store.flagged(self._worker.id)
        return any(subtask_id == one.id for one in held)

    def _one(self, claimed: Claimed) -> list[uuid.UUID]:
        outcome = self._execute(claimed)
        self.executed += 1
        recorded = self._record(outcome)
        if outcome.status == SubtaskStatus.FAILED and self._error is None:
            self._error = outcome.exception
        for written in recorded.written:
            run_hooks(written)
        released = list(recorded.ready)
        for key in recorded.settled.over_limit:
            revoke_rest(self._store, key)
            released += ready_callbacks(self._store, key)
        self._announcer.announce(recorded)
        return released

    def _execute(self, claimed: Claimed) -> Outcome:
        alias = self._store.alias
        if not connections[alias].in_atomic_block:
            return execute(self._worker, claimed)
        outcome = None
        try:
            with transaction.atomic(using=alias):
                outcome = execute(self._worker, claimed)
        except DatabaseError:
            # The task broke the transaction that it was called in. What it wrote is gone with
            # that; the transaction itself, which is the caller's, is not.
            if outcome is None:
                raise
        return outcome

    def _record(self, outcome: Outcome) -> Recorded:
        for _ in range(TRIES):
            recorded = record(self._store, self._worker.id, [outcome])
            if not recorded.parked:
                return recorded
            time.sleep(PAUSE)
        logger.error("subtask not recorded, somebody holds its rows id=%s", outcome.claimed.id)
        return recorded
