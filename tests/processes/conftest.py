"""Tests with real workers."""

from __future__ import annotations

from tests.workers.fixtures import ledger as ledger
from tests.workers.fixtures import start as start
