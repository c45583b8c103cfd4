"""What a set needs, and django-tasks-db does not have."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class CountedSet(models.Model):
    # Said here because the types know the models of the tests' own settings only.
    objects: ClassVar[models.Manager[CountedSet]] = models.Manager()

    remaining = models.IntegerField()
    released = models.BooleanField(default=False)
    callback_began = models.FloatField(default=0)
    total = models.BigIntegerField(default=0)
