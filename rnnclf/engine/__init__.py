"""Engines run a cell along time."""

from rnnclf.engine.fused import BY_PARTS, WORTH, parts_of_batches
from rnnclf.engine.unrolling import ENGINES, choose, unroll

__all__ = ["BY_PARTS", "ENGINES", "WORTH", "choose", "parts_of_batches", "unroll"]
