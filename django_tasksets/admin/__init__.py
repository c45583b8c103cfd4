"""The admin: a window on task sets, subtasks and workers, with buttons.

Everything here reads, or calls the flow; nothing is changed through a form. The logic is in mixins,
so that it goes with any subclass of ModelAdmin and on any AdminSite:

    class MyTaskSetAdmin(TaskSetAdminMixin, unfold.admin.ModelAdmin): ...

with `TASKSETS = {"REGISTER_ADMIN": False}`, which leaves the registering to you.
"""

from __future__ import annotations

from django.contrib import admin

from ..conf import current
from ..models import SubtaskRecord, TaskSetRecord, WorkerRecord
from .sets import TaskSetAdminMixin
from .subtasks import SubtaskAdminMixin
from .workers import WorkerAdminMixin

__all__ = [
    "SubtaskAdmin",
    "SubtaskAdminMixin",
    "TaskSetAdmin",
    "TaskSetAdminMixin",
    "WorkerAdmin",
    "WorkerAdminMixin",
]


class TaskSetAdmin(TaskSetAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Task sets in Django's own admin."""


class SubtaskAdmin(SubtaskAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Subtasks in Django's own admin."""


class WorkerAdmin(WorkerAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Workers in Django's own admin."""


if current().REGISTER_ADMIN:
    admin.site.register(TaskSetRecord, TaskSetAdmin)
    admin.site.register(SubtaskRecord, SubtaskAdmin)
    admin.site.register(WorkerRecord, WorkerAdmin)
