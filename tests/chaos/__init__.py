"""Faults on purpose, under load: whatever breaks, nothing is lost and nothing is doubled.

`python3 tests --chaos` runs all of it at full size, each database on a server of its own that may
be broken. An app, for the tasks that it is tried with.
"""
