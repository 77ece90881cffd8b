"""Engines run a cell along time."""

from rnnclf.engine.fused import parts_of_batches
from rnnclf.engine.unrolling import ENGINES, choose, unroll

__all__ = ["ENGINES", "choose", "parts_of_batches", "unroll"]
