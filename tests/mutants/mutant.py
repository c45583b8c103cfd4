"""What a mutant is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGE: Final = "django_tasksets"
SQLITE: Final = ("sqlite",)
POSTGRESQL: Final = ("postgresql",)
MARIADB: Final = ("mysql",)
SERVERS: Final = (*POSTGRESQL, *MARIADB)
ALL: Final = (*SQLITE, *SERVERS)

CLAIMS: Final = "tests/races/test_claims.py"
LOCKS: Final = "tests/races/test_locks.py"
OPEN_SETS: Final = "tests/races/test_open_sets.py"
STEERING: Final = "tests/database/test_steering.py"
STORE: Final = "tests/database/test_store.py"
TASKSETS: Final = "tests/database/test_tasksets.py"


@dataclass(frozen=True)
class Mutant:
    """One edit that removes one guard, and the tests that ought to notice."""

    name: str
    removes: str
    module: str
    """Below the package, with slashes."""
    old: str
    """Is in the module exactly once: what this finds no more has to be looked at anew."""
    new: str
    tests: tuple[str, ...]
    """As few as there can be, in pytest's words."""
    databases: tuple[str, ...] = SQLITE

    @property
    def path(self) -> Path:
        """The module's file, below the root."""
        return Path(PACKAGE, self.module)

    @property
    def import_name(self) -> str:
        """The module's name."""
        return ".".join(self.path.with_suffix("").parts)

    def applied(self, text: str) -> str:
        """The module's text with the edit; raises LookupError if it does not fit any more."""
        if (count := text.count(self.old)) != 1:
            raise LookupError(f"{self.name}: {self.path} has {count} times\n{self.old}")
        return text.replace(self.old, self.new)
