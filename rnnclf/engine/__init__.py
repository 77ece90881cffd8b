"""Engines, which run a cell along time. Import its modules: some of them do not need torch."""
