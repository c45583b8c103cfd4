"""The names of tables and columns, taken from the models, for statements that are written out."""

from __future__ import annotations

from django.db.models import Model

from ..models import SubtaskRecord, TaskSetRecord
from .contract import RESULT_FIELDS, Claimed, NewSubtask, SetState, WaitingCallback


def table(model: type[Model]) -> str:
    """The model's table, quoted as standard SQL does."""
    return f'"{model._meta.db_table}"'


def columns(model: type[Model], names: tuple[str, ...], prefix: str = "") -> str:
    """The columns of the named attributes (`taskset_id` for a key), separated by commas."""
    by_attribute = {field.attname: field.column for field in model._meta.concrete_fields}
    return ", ".join(f'{prefix}"{by_attribute[name]}"' for name in names)


SUBTASK = table(SubtaskRecord)
TASKSET = table(TaskSetRecord)
INSERT_COLUMNS = columns(SubtaskRecord, NewSubtask._fields)
CLAIMED_COLUMNS = columns(SubtaskRecord, Claimed._fields)
CLAIMED_COLUMNS_OF_S = columns(SubtaskRecord, Claimed._fields, "s.")
RESULT_COLUMNS = columns(SubtaskRecord, RESULT_FIELDS)
CALLBACK_COLUMNS = columns(SubtaskRecord, WaitingCallback._fields)
STATE_COLUMNS = columns(TaskSetRecord, SetState._fields)
STATE_COLUMNS_OF_T = columns(TaskSetRecord, SetState._fields, "t.")
