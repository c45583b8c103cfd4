"""The rows that a set has besides its members."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.contrib.contenttypes.models import ContentType
from django.db.models import Model

from . import codec
from .calls import SetSpec
from .exceptions import InvalidOption, NotStorable
from .models import TaskSetRecord
from .packing import Packer
from .statuses import Role
from .store.contract import NewSubtask, Store

MAX_NAME: Final = 200


def callback_rows(packer: Packer, spec: SetSpec) -> list[NewSubtask]:
    """The rows of a set's callbacks. Raises what Packer.callback() does."""
    given = {
        Role.ON_SUCCESS: spec.on_success,
        Role.ON_FAILURE: spec.on_failure,
        Role.ON_FINISH: spec.on_finish,
    }
    return [packer.callback(call, role) for role, call in given.items() if call is not None]


def set_record(store: Store, spec: SetSpec, now: datetime) -> TaskSetRecord:
    """The row of a set that has no members yet. Raises InvalidOption or NotStorable."""
    record = TaskSetRecord(
        id=spec.id,
        name=_checked_name(spec.name),
        metadata=codec.encode(spec.metadata, path="metadata"),
        max_failures=spec.max_failures,
        max_failures_percent=spec.max_failures_percent,
        has_callbacks=any((spec.on_success, spec.on_failure, spec.on_finish)),
        origin_id=spec.origin,
        enqueued_at=now,
        sealed_at=now if spec.sealed else None,
    )
    if spec.owner is not None:
        record.owner_id = spec.owner.pk
    if isinstance(spec.related, Model):
        types = ContentType.objects.db_manager(store.alias)
        record.related_type = types.get_for_model(spec.related)
        record.related_id = str(spec.related.pk)
    return record


def _checked_name(name: str) -> str:
    if len(name) > MAX_NAME:
        raise InvalidOption(f"name={name[:MAX_NAME]!r}... is longer than {MAX_NAME} characters")
    try:
        codec.encode(name, path="name")
    except NotStorable as error:
        raise InvalidOption(str(error)) from error
    return name
