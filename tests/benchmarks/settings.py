"""Django settings of the benchmarks: as little as a project can have."""

from __future__ import annotations

import os

from tests import services

SECRET_KEY = "benchmarks"
DATABASES = {"default": services.DATABASES[os.environ[services.DATABASE]].settings()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_tasksets",
    "tests.benchmarks",
]
USE_TZ = True
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"django_tasksets": {"level": "ERROR"}},
}
