"""Indexes over a part of a table, and what stands in for them where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.ddl_references import Statement


class PartialIndex(models.Index):
    """An index over the rows `where` something holds; where that is not known (MySQL, MariaDB),
    one over all rows, over the columns `otherwise`."""

    def __init__(
        self, *, where: models.Q, fields: Sequence[str], name: str, otherwise: Sequence[str]
    ) -> None:
        # Not Django's `condition`, which it would warn about and leave out there.
        super().__init__(fields=list(fields), name=name)
        self.where = where
        self.otherwise = tuple(otherwise)

    def create_sql(
        self,
        model: type[models.Model],
        schema_editor: BaseDatabaseSchemaEditor,
        using: str = "",
        **kwargs: Any,
    ) -> Statement:
        """The statement that creates the index, or its stand-in."""
        if schema_editor.connection.features.supports_partial_indexes:
            index = models.Index(fields=self.fields, name=self.name, condition=self.where)
        else:
            index = models.Index(fields=self.otherwise, name=self.name)
        return index.create_sql(model, schema_editor, using, **kwargs)

    def deconstruct(self) -> Any:
        """What a migration needs to make it again."""
        path, expressions, kwargs = super().deconstruct()
        return path, expressions, kwargs | {"where": self.where, "otherwise": self.otherwise}
