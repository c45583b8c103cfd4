"""For the tests of projects that use task sets."""

from __future__ import annotations

from collections.abc import Sequence

from .draining import Drain
from .models import SubtaskRecord
from .statuses import SubtaskStatus
from .store import get_store


def run_subtasks(
    *, queues: Sequence[str] = (), limit: int | None = None, scheduled: bool = False
) -> int:
    """Execute what is enqueued, in this thread, until nothing is left; returns how many.

    Works inside a TestCase: everything happens on this thread's connection, in its transaction,
    by the same claiming, executing and recording as in a worker. Callbacks, links, hooks and
    whatever the tasks enqueue are executed too, in the order in which a single worker would.

    `queues` names those to take from, by default all. `limit` ends after so many executions. With
    `scheduled`, subtasks are not waited for: an eta, a countdown or a retry delay is over at once.
    """
    store = get_store()
    executed = 0
    while True:
        if scheduled:
            later = SubtaskRecord.objects.using(store.alias).filter(status=SubtaskStatus.SCHEDULED)
            later.update(status=SubtaskStatus.READY)
        with Drain(store) as drain:
            drain.run_all(queues, None if limit is None else limit - executed)
        executed += drain.executed
        if not scheduled or not drain.executed or (limit is not None and executed >= limit):
            return executed
