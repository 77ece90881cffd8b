"""Engines run a cell along time. Import the modules, not this package: only some of them need torch."""
