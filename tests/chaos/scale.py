"""How much is done, and in which order: a selection of small experiments, or all in full."""

from __future__ import annotations

import os
import random
from typing import Final, TypeVar

T = TypeVar("T")

FULL: Final = "TASKSETS_CHAOS_FULL"
"""The environment variable that asks for full size."""
SEED: Final = "TASKSETS_CHAOS_SEED"
"""The environment variable that makes a run like another one."""
MINUTES: Final = "TASKSETS_CHAOS_MINUTES"
"""The environment variable that says after how many minutes no experiment is begun any more."""
SHARE: Final = "TASKSETS_CHAOS_SHARE"
"""The environment variable that says which share of the experiments is made, as in 0/2: of two
shares the first. Each of them is then made on one of its databases only."""

is_full: Final = bool(os.environ.get(FULL))
seed: Final = int(os.environ.get(SEED) or (random.randrange(10**6) if is_full else 1))


def size(small: T, full: T) -> T:
    """The size of an experiment, in the selection and in full."""
    return full if is_full else small


def generator(name: str) -> random.Random:
    """Chance, the same for the same experiment and seed."""
    return random.Random(f"{name} {seed}")
