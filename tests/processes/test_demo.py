"""The demo as somebody runs it, on a copy of testproject/ so that its state is the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# What testproject/__main__.py does once it is in its environment.
SHOW = """
import sys
sys.path[0] = sys.argv.pop(1)
from demo.show import main
sys.exit(main(sys.argv[1:]))
"""
LIMIT = 90

StartDemo = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree that takes no time."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(50):
        (tree / f"module_{number}.py").write_text("def f():\n    return 1\n")
    (tree / "README").write_text("Read me.\n" * 1000)
    return tree


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[StartDemo]:
    """Starts the demo; what is left of it is ended with the test."""
    project = tmp_path / "testproject"
    shutil.copytree(
        ROOT / "testproject", project, ignore=shutil.ignore_patterns(".demo", "__pycache__")
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    # As a shell of somebody who works on another project may have it.
    environment["DJANGO_SETTINGS_MODULE"] = "elsewhere.settings"
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SHOW, str(project), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=LIMIT)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """The line that holds these words."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line.strip()
    pytest.fail(f"The demo ended without {words!r}: {process.communicate()[1]}")


def answers(address: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(address, timeout=10) as response:
            return bool(response.status == 200)
    except URLError:
        return False


def test_once_ends_after_the_report(demo: StartDemo, tree: Path) -> None:
    process = demo("--once", "--path", str(tree))

    out, err = process.communicate(timeout=LIMIT)

    assert (process.returncode, err) == (0, "")
    assert "100 %  51 of 51 files" in out
    assert "51 files in " in out
    assert "1,100 lines, 50 functions, 0 classes" in out
    assert "8.8 KB  README" in out


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
def test_it_stays_up_until_interrupted(demo: StartDemo, tree: Path) -> None:
    process = demo("--path", str(tree))

    page = read_until(process, "The page:").removeprefix("The page:").strip()
    admin = read_until(process, "The admin:").split()[2]
    read_until(process, "Ctrl-C")
    assert answers(page)
    assert answers(admin)

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT)

    assert process.returncode == 0
    assert not answers(page)


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
def test_a_terminated_demo_leaves_nothing_running(demo: StartDemo) -> None:
    process = demo()

    page = read_until(process, "live at").rpartition(" ")[2]
    process.terminate()
    process.communicate(timeout=LIMIT)

    assert process.returncode == 128 + signal.SIGTERM
    assert not answers(page)


def test_a_tree_without_files_is_refused(demo: StartDemo, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    process = demo("--once", "--path", str(tmp_path / "empty"))
    _, err = process.communicate(timeout=LIMIT)

    assert process.returncode == 1
    assert err.strip() == "There is no file to survey in that directory."
