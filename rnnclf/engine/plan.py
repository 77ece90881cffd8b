"""The results that are requested from an engine.  Shapes: T time, B batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnnclf.cells.state import map_states


@dataclass(frozen=True)
class Plan:
    """Which results are requested, and the lengths of the sequences.

    lengths_B: the number of valid steps of each sequence; None if all steps are valid.
    every_step: the outputs of all steps, not only of the last valid one.
    final_state: also the state after the last valid step.
    """

    lengths_B: Tensor | None = None
    every_step: bool = True
    final_state: bool = True

    def last_of(self, parts: Any) -> Any:
        """Each of the tensors (T, B, …) in `parts` at the last valid step: (B, …)."""
        if self.lengths_B is None:
            return map_states(lambda part: part[-1], parts)
        last_B = self.lengths_B - 1
        rows_B = torch.arange(len(last_B), device=last_B.device)
        return map_states(lambda part: part[last_B, rows_B], parts)

    def held(self, y_TBH: Tensor) -> Tensor:
        """The outputs, with the last valid one repeated after the end of each sequence."""
        if self.lengths_B is None:
            return y_TBH
        t_T1 = torch.arange(len(y_TBH), device=y_TBH.device).unsqueeze(-1)
        source_TB1 = torch.minimum(t_T1, self.lengths_B - 1).unsqueeze(-1)
        return y_TBH.gather(0, source_TB1.expand_as(y_TBH))

    def right_aligned(self, parts_TB: Tensor) -> Tensor:
        """Each sequence shifted to end at the last step, with zeros before it."""
        if self.lengths_B is None:
            return parts_TB
        steps = len(parts_TB)
        t_T1 = torch.arange(steps, device=parts_TB.device).unsqueeze(-1)
        source_TB = (t_T1 - (steps - self.lengths_B)).reshape(steps, -1, *[1] * (parts_TB.ndim - 2))
        moved = parts_TB.gather(0, source_TB.clamp(min=0).expand_as(parts_TB))
        return torch.where(source_TB >= 0, moved, torch.zeros_like(moved))
