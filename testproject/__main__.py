"""`python3 testproject`: make an environment, then show the demo. Needs nothing but Python."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit(f"django-tasksets needs Python 3.11 or newer; this is {sys.version.split()[0]}.")

# What Python put there is relative; the demo may change its directory.
sys.path[0] = str(Path(__file__).resolve().parent)

import bootstrap


def main() -> int:
    """Enter the environment and hand over to the demo."""
    bootstrap.enter("demo")
    from demo.show import main as show

    return show(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
