"""Hostile inputs by kind: what makes them, and what tries them. See fuzz.py."""
