"""The minimal GRU and LSTM, whose gates depend on the input alone.  Shapes: I inputs, H hidden, G gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import AffineCell, Paper
from rnnclf.cells.initializers import Fan, glorot, zeros
from rnnclf.cells.linear import LinearCell
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class MinimalCell(AffineCell, LinearCell):
    """Base of both cells: input_weight (G·H, I), bias (G·H), candidate last; the output is the state."""

    candidate: str = option(
        "linear",
        "g in the equations: linear, or a function with positive values",
        choices=("linear", "positive"),
    )

    paper: ClassVar = Paper(
        "Were RNNs All We Needed?", "Feng et al.", 2024, "https://arxiv.org/abs/2410.01201"
    )
    family: ClassVar = "linear gates"

    @property
    def formula(self) -> str:
        return f"{len(self.gates)}*h*(n + 1)"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        rows = len(self.gates) * self.hidden_size
        fan = Fan(inputs=input_size, hidden=self.hidden_size, gates=len(self.gates))

        def fill_weight(weight: Tensor) -> None:
            for block in weight.chunk(fan.gates):
                glorot(block, fan)

        return {
            "input_weight": ParameterSpec((rows, input_size), fill_weight),
            "bias": ParameterSpec((rows,), self.fill_bias),
        }

    def fill_bias(self, bias: Tensor) -> None:
        zeros(bias)

    def read(self, p: Parameters, s: Tensor, h: Tensor) -> Tensor:
        return h

    def candidate_of(self, v: Tensor) -> Tensor:
        """g of the equations."""
        return (v + 0.5).where(v >= 0, v.sigmoid()) if self.candidate == "positive" else v


@dataclass
class MinGRU(MinimalCell):
    """Minimal GRU: one gate, which depends on the input alone.

    z_t = sigmoid(W_z x_t + b_z)            update gate
    n_t = g(W_n x_t + b_n)                  candidate
    h_t = (1 - z_t) * h_{t-1} + z_t * n_t   h_0 = 0

    g(v) = v                                                candidate=linear
    g(v) = v + 0.5 where v >= 0, sigmoid(v) where v < 0     candidate=positive

    The output is h_t. input_weight holds the rows W_z, W_n; bias holds b_z, b_n. The linear candidate is
    from the paper's plain version, the positive one from its log-space version (logarithms are not needed
    here). As the gate does not depend on the state, a single layer can hardly relate one step to
    another: use two or more.

    Weights are Glorot-uniform. Differs from the paper: b_z starts at update_bias, so that the cell remembers
    at first; and h_0 is 0 with the positive candidate as well, not g(0).
    """

    name: str = "mingru"
    update_bias: float = option(-1.0, "initial b_z; -1 starts with a long memory", low=-100, high=100)

    gates: ClassVar[tuple[str, ...]] = ("z", "n")

    def fill_bias(self, bias: Tensor) -> None:
        super().fill_bias(bias)
        bias.chunk(len(self.gates))[self.gates.index("z")].fill_(self.update_bias)

    def recurrence(self, p: Parameters, s: Tensor) -> tuple[Tensor, Tensor]:
        z, n = s.chunk(2, dim=-1)
        return (-z).sigmoid(), z.sigmoid() * self.candidate_of(n)  # 1 - sigmoid(z) would lose precision


@dataclass
class MinLSTM(MinimalCell):
    """Minimal LSTM: forget and input gate depend on the input and add up to 1.

    f_t = sigmoid(W_f x_t + b_f)            forget gate
    i_t = sigmoid(W_i x_t + b_i)            input gate
    n_t = g(W_n x_t + b_n)                  candidate
    h_t = (f_t * h_{t-1} + i_t * n_t) / (f_t + i_t)         h_0 = 0

    g(v) = v                                                candidate=linear
    g(v) = v + 0.5 where v >= 0, sigmoid(v) where v < 0     candidate=positive

    The output is h_t. input_weight holds the rows W_f, W_i, W_n; bias holds b_f, b_i, b_n. The linear
    candidate is from the paper's plain version, the positive one from its log-space version
    (logarithms are not needed here). As the gates do not depend on the state, a single layer can hardly
    relate one step to another: use two or more.

    Weights are Glorot-uniform. Differs from the paper: b_f starts at forget_bias, so that the cell remembers
    at first; and h_0 is 0 with the positive candidate as well, not g(0).
    """

    name: str = "minlstm"
    forget_bias: float = option(1.0, "initial b_f; 1 starts with open forget gates", low=-100, high=100)

    gates: ClassVar[tuple[str, ...]] = ("f", "i", "n")

    def fill_bias(self, bias: Tensor) -> None:
        super().fill_bias(bias)
        bias.chunk(len(self.gates))[self.gates.index("f")].fill_(self.forget_bias)

    def recurrence(self, p: Parameters, s: Tensor) -> tuple[Tensor, Tensor]:
        from torch.nn.functional import logsigmoid

        f, i, n = s.chunk(3, dim=-1)
        odds = logsigmoid(f) - logsigmoid(i)  # log(f_t / i_t), without dividing two vanishing gates
        return odds.sigmoid(), (-odds).sigmoid() * self.candidate_of(n)
