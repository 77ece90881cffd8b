"""A small run by the command line."""

from __future__ import annotations

SMALL = ("dataset=digits", "hidden=8", "epochs=2", "threads=1")
