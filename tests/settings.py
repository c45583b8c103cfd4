"""Django settings of the tests; TASKSETS_TEST_DATABASE says on which database."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from tests import services

# Inherited by the processes that this one starts, so that all agree on the database's name.
os.environ.setdefault(services.RUN, str(os.getpid()))
_process = f"{os.environ[services.RUN]}-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"

SECRET_KEY = "tests"
_database = services.DATABASES[os.environ.get(services.DATABASE, "sqlite")]
DATABASES = {"default": _database.settings()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    # Asked for by the fixture redis_url, which says whether it answers.
    "redis": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": services.REDIS_URL,
        "KEY_PREFIX": f"tasksets-tests-{_process}",
    },
}
TASKSETS = {"REDIS_PREFIX": f"tasksets-tests-{_process}:"}
# What a test says for the processes that it starts, as JSON.
TASKSETS |= json.loads(os.environ.get("TASKSETS_TEST_SETTINGS", "{}"))

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_tasksets",
    "demo",
    "tests",
    # The same: more apps, separated by commas.
    *filter(None, os.environ.get("TASKSETS_TEST_APPS", "").split(",")),
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "tests.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
STATIC_URL = "static/"
# What the demo writes.
STATE = Path(tempfile.gettempdir()) / f"tasksets-demo-{_process}"
# Safe ones take time, and no test is about them.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
