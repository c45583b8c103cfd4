from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "django_tasksets"
NOT_SHIPPED = {".pyc", ".po"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as it would be published, built without the network."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = directory.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        yield file


def test_everything_of_the_package_is_in_the_wheel(wheel):
    """Templates, static files, migrations and translations are forgotten easily."""
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in NOT_SHIPPED
    }

    assert there - shipped == set()
    assert "django_tasksets/py.typed" in shipped


def test_nothing_else_is_in_the_wheel(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}

    assert len(tops) == 2
    assert "django_tasksets" in tops


def test_the_metadata_names_the_versions_and_the_extras(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = wheel.read(name).decode().splitlines()

    assert "Requires-Python: >=3.11" in metadata
    assert "Requires-Dist: django>=5.2" in metadata
    assert {"redis", "postgres", "mysql"} <= {
        line.removeprefix("Provides-Extra: ") for line in metadata if "Extra: " in line
    }
