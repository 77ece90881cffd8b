"""Engines run a cell along time."""

from rnnclf.engine.loop import unroll

__all__ = ["unroll"]
