"""The norms of the gradients of an epoch's steps, before clipping. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GradientNorms:
    """The mean and the largest norm of all gradients together in the steps of an epoch, and the share of
    these steps in which they were clipped."""

    mean: float
    largest: float
    clipped: float
