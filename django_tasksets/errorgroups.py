"""Counts failures by their reason, so that nobody has to look at each."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from .models import ErrorGroupRecord
from .store.contract import Outcome, Store, batches

CHUNK = 500

Key = tuple[uuid.UUID, str]


def count_errors(store: Store, failed: Iterable[Outcome]) -> None:
    """Count failures, of members, into the error groups of their sets.

    A step of the transaction that ends them. It holds the sets' rows, so nobody else counts.
    """
    failures: dict[Key, list[Outcome]] = {}
    for outcome in failed:
        taskset_id, fingerprint = outcome.claimed.set_that_counts, outcome.error_fingerprint
        if taskset_id is not None and fingerprint:
            failures.setdefault((taskset_id, fingerprint), []).append(outcome)
    if not failures:
        return
    groups = ErrorGroupRecord.objects.using(store.alias)
    now = store.now()
    known = _known(store, failures)
    for key, outcomes in failures.items():
        group = known.get(key)
        if group is None:
            group = ErrorGroupRecord(taskset_id=key[0], fingerprint=key[1], first_seen_at=now)
            group.exception_class = outcomes[-1].error_class[:255]
        known[key] = group
        group.count += len(outcomes)
        group.message = outcomes[-1].error_message[:500]
        group.latest_subtask_id = outcomes[-1].claimed.id
        group.last_seen_at = now
    new = [known[key] for key in failures if known[key].pk is None]
    old = [known[key] for key in failures if known[key].pk is not None]
    groups.bulk_create(new)
    groups.bulk_update(old, ["count", "message", "latest_subtask_id", "last_seen_at"])


def _known(store: Store, keys: Iterable[Key]) -> dict[Key, ErrorGroupRecord]:
    """The groups that there are already, of these sets and reasons."""
    known: dict[Key, ErrorGroupRecord] = {}
    fingerprints = {fingerprint for _, fingerprint in keys}
    groups = ErrorGroupRecord.objects.using(store.alias)
    for batch in batches({taskset_id for taskset_id, _ in keys}, CHUNK):
        found = groups.filter(taskset_id__in=batch, fingerprint__in=fingerprints)
        known |= {(group.taskset_id, group.fingerprint): group for group in found}
    return known
