"""What `import django_tasksets` gives, and needs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import django_tasksets
from django_tasksets import exceptions


def test_importing_it_needs_no_settings_and_no_models() -> None:
    script = """
import sys
import django_tasksets
assert django_tasksets.__version__ and "TaskSet" in dir(django_tasksets)
assert len(django_tasksets.gen_unique_id()) == 36
assert issubclass(django_tasksets.InvalidId, ValueError)
assert "django.apps" not in sys.modules and "django_tasksets.models" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=sys.path[0] or None)


@pytest.mark.parametrize("name", django_tasksets.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(django_tasksets, name) is getattr(django_tasksets, name)
    assert name in dir(django_tasksets)


def test_every_exception_is_public() -> None:
    classes = {name for name, cls in vars(exceptions).items() if inspect.isclass(cls)}
    assert classes <= set(django_tasksets.__all__)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'anything'"):
        _ = django_tasksets.anything
