"""Django settings of the peers that are Django apps: on PostgreSQL, with connections that stay."""

from __future__ import annotations

from tests import services

SECRET_KEY = "benchmarks"
DATABASES = {"default": services.DATABASES["postgresql"].settings() | {"CONN_MAX_AGE": None}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django_celery_results",
    "django_tasks",
    "django_tasks_db",
    "tests.benchmarks.peers.counted",
]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
USE_TZ = True
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {name: {"level": "ERROR"} for name in ("django_tasks", "django_tasks_db")},
}
