"""Engines run a cell along time."""

from rnnclf.engine.fused import BY_PARTS, WORTH, parts_of_batches, rows_of_parts
from rnnclf.engine.unrolling import ENGINES, choose, chosen_for, engines_on, unroll

__all__ = [
    "BY_PARTS",
    "ENGINES",
    "WORTH",
    "choose",
    "chosen_for",
    "engines_on",
    "parts_of_batches",
    "rows_of_parts",
    "unroll",
]
