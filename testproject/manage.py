#!/usr/bin/env python3
"""Django's command line for the demo project. Without Django it enters the demo's environment."""

from __future__ import annotations

import importlib.util
import os
import sys

import bootstrap


def main() -> None:
    """Run the command that sys.argv names."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    if importlib.util.find_spec("django") is None:
        bootstrap.enter("demo")
    # Another environment than the demo's may not know where the package is.
    sys.path.append(str(bootstrap.ROOT))
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
