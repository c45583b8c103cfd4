"""What runs in other processes. Imported there by name, before Django is set up."""

from __future__ import annotations

import random
import uuid
from typing import Any

import django


def record_in_rounds(
    worker_id: uuid.UUID, members: list[uuid.UUID], size: int, barrier: Any, answers: Any
) -> None:
    """Claim the members; then record so many of them at a time, each time together with the other
    process; tell which sets that finished, and which callbacks it released."""
    django.setup()
    from django_tasksets.store import get_store
    from django_tasksets.store.contract import batches
    from tests import flow

    store = get_store()
    store.dedicate()
    told: dict[str, list[uuid.UUID]] = {"finished": [], "released": []}
    for keys in batches(members, size):
        claimed = store.claim_ids(worker_id, keys)
        assert len(claimed) == len(keys)
        random.shuffle(claimed)
        barrier.wait(60)
        recorded = flow.record_all(store, worker_id, claimed)
        assert len(recorded.written) == len(keys)
        told["finished"] += [state.id for state in recorded.settled.finished]
        told["released"] += [callback.taskset_id for callback in recorded.settled.released]
    answers.put(told)
