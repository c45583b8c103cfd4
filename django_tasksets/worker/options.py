"""What a worker is asked to do."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..calls import Seconds

# How a worker process ends. Anything else, and any signal, is a crash; so is an end without
# Board.leave(), whatever the code: a task may call os._exit().
EXIT_STOPPED: Final = 0
EXIT_RECYCLE: Final = 70
"""It has executed its --max-tasks, grown past --max-memory, or rid itself of a subtask by its own
end; a fresh process is to take its place."""
EXIT_LOST: Final = 71
"""It could not confirm that it is alive, was declared dead, or is broken; the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The options of `runtaskworker`."""

    alias: str
    queues: tuple[str, ...] = ()
    """No names are all queues."""
    processes: int = field(default_factory=lambda: os.cpu_count() or 1)
    threads: int = 4
    async_concurrency: int = 200
    burst: bool = False
    """Exit once nothing is left to do."""
    max_tasks: int | None = None
    """Replace a process after so many subtasks."""
    max_memory: int | None = None
    """Replace a process that has grown beyond so many bytes."""
    grace: Seconds = 25
    interval: Seconds = 0.5
    """How often to look for work where no wake-ups come."""
    reload: bool = False
    progress: bool = False
    """Show on the standard output how the running sets stand."""
    health_file: Path | None = None
    """Touched every second while the heartbeats of all processes are confirmed."""

    @property
    def slots(self) -> int:
        """How many subtasks a process may have under way at once: one more is being prepared for
        the event loop."""
        return self.threads + self.async_concurrency + 1
