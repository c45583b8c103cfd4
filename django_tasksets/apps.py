"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

from . import checks  # noqa: F401  the import registers them


class TaskSetsConfig(AppConfig):
    """Imports the `tasks` modules of installed apps, so that every process knows all tasks."""

    name = "django_tasksets"
    label = "tasksets"
    verbose_name = _("Task sets")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Make the handles known to the codec, so that rows with them can be read; find tasks."""
        from . import tasksets  # noqa: F401  models must be loaded first

        autodiscover_modules("tasks")
