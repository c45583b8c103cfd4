"""Starts a worker anew when its code changes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from django.utils import autoreload

logger = logging.getLogger("django_tasksets")


class Reloader:
    """Watches the files of all modules that are imported here."""

    def __init__(self) -> None:
        self._files = _files()

    def is_to_reload(self) -> bool:
        """Whether code has changed since this was last asked, and can be loaded as it is now."""
        before, self._files = self._files, _files()
        changed = [
            path for path, moment in self._files.items() if before.get(path, moment) != moment
        ]
        if not changed:
            return False
        logger.info("code changed file=%s", changed[0])
        return _can_be_loaded()

    def restart(self) -> None:
        """Become the same command anew."""
        os.execv(sys.executable, autoreload.get_child_arguments())  # noqa: S606  as we were started


def _files() -> dict[Path, float]:
    return dict(autoreload.StatReloader().snapshot_files())


def _can_be_loaded() -> bool:
    """Whether a new process gets as far as to explain this command. A file that is saved half
    finished must not leave nobody to notice that it is finished."""
    command = [*autoreload.get_child_arguments(), "--help"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603  as we were started
    if done.returncode != 0:
        logger.error("code cannot be loaded, going on with the old\n%s", done.stderr.strip())
    return done.returncode == 0
