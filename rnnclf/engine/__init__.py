"""Engines run a cell along time."""

from rnnclf.engine.unrolling import ENGINES, choose, unroll

__all__ = ["ENGINES", "choose", "unroll"]
