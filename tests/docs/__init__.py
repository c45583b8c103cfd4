"""Tests that the documentation is true: its code runs, its reference is complete."""
