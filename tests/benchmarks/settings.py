"""Django settings of the benchmarks: as little as a project can have."""

from __future__ import annotations

import os

from tests import services
from tests.benchmarks import lab

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
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "redis": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": services.REDIS_URL},
}
# Where the database wakes nobody, Redis does, if there is one.
TASKSETS = {
    "REDIS": None if services.redis_absent() else "redis",
    "REDIS_PREFIX": f"{os.environ.get(services.DATABASE_NAME)}:",
    "WAKEUPS": os.environ.get(lab.WAKEUPS, "auto"),
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"django_tasksets": {"level": "ERROR"}},
}
