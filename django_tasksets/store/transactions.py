"""Connections and transactions, in plain Django."""

from __future__ import annotations

import contextlib
import datetime
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from django.db import DatabaseError, DataError, Error, IntegrityError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model, QuerySet
from django.db.models.sql import Query

from ..conf import current
from ..models import SubtaskRecord, TaskSetRecord
from ..querysets import SubtaskQuerySet, TaskSetQuerySet
from .contract import Store
from .moments import Now
from .private import private_connection

T = TypeVar("T")
M = TypeVar("M", bound=Model)

TRIES: Final = 10
# None is begun after this, in seconds: what has waited for a lock that long fails.
PATIENCE: Final = 10.0


def lease_in_seconds() -> int:
    """The lease as servers take it: after so long without a word a worker is as good as dead."""
    return max(1, round(current().LEASE))


class Transactions(Store):
    """The part of a store that is no statement of its own."""

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """The calling thread's connection."""
        return connections[self.alias]

    @property
    def subtasks(self) -> SubtaskQuerySet:
        """All subtasks in this store, in no order."""
        return SubtaskRecord.objects.using(self.alias).order_by()

    @property
    def tasksets(self) -> TaskSetQuerySet:
        """All task sets in this store, in no order."""
        return TaskSetRecord.objects.using(self.alias).order_by()

    def dedicate(self) -> None:
        # One that is broken already may fail to close.
        with contextlib.suppress(Error):
            self.connection.close()
        connections[self.alias] = private_connection(self.alias)
        self.reconnect()

    def reconnect(self) -> None:
        self.connection.close()
        # Unlike connect(), it raises Django's errors, whatever the driver's are.
        self.connection.ensure_connection()

    @property
    def is_nested(self) -> bool:
        """Whether the caller has a transaction open already."""
        connection = self.connection
        return connection.in_atomic_block or not connection.get_autocommit()

    def run(self, work: Callable[[], T]) -> T:
        def in_transaction() -> T:
            with transaction.atomic(using=self.alias):
                return work()

        return self._repeated(in_transaction, 1 if self.is_nested else TRIES)

    def run_statement(self, work: Callable[[], T]) -> T:
        return self.run(work) if self.is_nested else self._repeated(work, TRIES)

    def _repeated(self, work: Callable[[], T], tries: int) -> T:
        deadline = time.monotonic() + PATIENCE
        for attempt in range(1, tries + 1):
            try:
                return work()
            except DatabaseError as error:
                is_last = attempt == tries or time.monotonic() > deadline
                if is_last or not self.is_transient(error):
                    raise
            time.sleep(random.uniform(0, min(1.0, 0.01 * 2**attempt)))
        raise AssertionError("the last attempt returns or raises")

    def is_transient(self, error: BaseException) -> bool:
        return False

    def is_lock_timeout(self, error: BaseException) -> bool:
        return False

    def is_refusal(self, error: BaseException) -> bool:
        return isinstance(error, DataError | IntegrityError)

    def pace(self) -> None:
        """Nothing is to be gained where writers do not wait for each other."""

    def now(self) -> datetime.datetime:
        connection = self.connection
        compiler = connection.ops.compiler("SQLCompiler")(Query(None), connection, self.alias)
        now = Now()
        sql, parameters = compiler.compile(now)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {sql}{connection.features.bare_select_suffix}", parameters)
            (moment,) = cursor.fetchone()
        for convert in now.get_db_converters(connection) + connection.ops.get_db_converters(now):
            moment = convert(moment, now, connection)
        return moment  # type: ignore[no-any-return]  # a DateTimeField's

    def locked(self, queryset: QuerySet[M, M], *, skip: bool) -> QuerySet[M, M]:
        features = self.connection.features
        queryset = queryset.order_by("id")
        if not features.has_select_for_update:
            return queryset
        return queryset.select_for_update(
            skip_locked=skip and features.has_select_for_update_skip_locked,
            no_key=features.has_select_for_no_key_update,
        )
