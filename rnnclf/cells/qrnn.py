"""The quasi-recurrent network.  Shapes: K window, I inputs, H hidden, G gates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import Paper
from rnnclf.cells.linear import LinearCell
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor

GATES = {"f": ("z", "f"), "fo": ("z", "f", "o"), "ifo": ("z", "f", "o", "i")}


@dataclass
class QRNN(LinearCell):
    """Quasi-recurrent network: gates from a convolution, then gated pooling.

    z_t = tanh(sum_k W_z,k x_{t-k} + b_z)           candidate; k = 0 … window - 1; x before step 1 is 0
    f_t = sigmoid(sum_k W_f,k x_{t-k} + b_f)        forget gate
    o_t = sigmoid(sum_k W_o,k x_{t-k} + b_o)        output gate; o_t = 1 with pooling=f
    i_t = sigmoid(sum_k W_i,k x_{t-k} + b_i)        input gate; i_t = 1 - f_t unless pooling=ifo
    c_t = f_t * c_{t-1} + i_t * z_t
    h_t = o_t * c_t

    The output is h_t. input_weight (window, G·H, I) holds, for each k, the rows W_z,k, W_f,k, W_o,k, W_i,k
    of the gates that the pooling uses; bias holds b_z, b_f, b_o, b_i likewise. For earlier inputs, the state
    stores their contributions to later gates. Differs from the paper: there are biases, and b_f starts at
    forget_bias, so that the forget gates are open at first.
    """

    name: str = "qrnn"
    window: int = option(2, "width of the convolution: inputs that each step sees", low=1, high=100)
    forget_bias: float = option(1.0, "initial b_f; 1 starts with open forget gates", low=-100, high=100)
    pooling: str = option("fo", "which gates it has: f forget, o output, i input", choices=tuple(GATES))

    paper: ClassVar = Paper(
        "Quasi-Recurrent Neural Networks", "Bradbury et al.", 2017, "https://arxiv.org/abs/1611.01576"
    )
    family: ClassVar = "linear gates"

    @property
    def formula(self) -> str:
        return f"{len(GATES[self.pooling])}*h*(window*n + 1)"

    @property
    def past(self) -> tuple[int, int]:
        return (self.window - 1, (self.window - 1) * self._rows)

    @property
    def _rows(self) -> int:
        return len(GATES[self.pooling]) * self.hidden_size

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        def fill_weight(weight: Tensor) -> None:
            # Glorot's limit for the block of one gate, H rows of window·I inputs
            limit = math.sqrt(6 / (self.hidden_size + self.window * input_size))
            weight.uniform_(-limit, limit)

        return {
            "input_weight": ParameterSpec((self.window, self._rows, input_size), fill_weight),
            "bias": ParameterSpec((self._rows,), self._fill_bias),
        }

    def _fill_bias(self, bias: Tensor) -> None:
        bias.zero_()
        self._gates(bias)["f"].fill_(self.forget_bias)

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        """The contributions of x_t to the gates of this step, the next one, …: (…, K·G·H)."""
        from torch.nn import functional

        bias = functional.pad(p.bias, (0, (self.window - 1) * self._rows))
        return functional.linear(x, p.input_weight.flatten(0, 1), bias)

    def keep(self, z: Tensor) -> Tensor:
        return z[..., self._rows :]

    def signals(self, p: Parameters, z: Tensor, past: tuple[Tensor, ...]) -> Tensor:
        rows = self._rows
        s = z[..., :rows]
        for k, earlier in enumerate(past):
            s = s + earlier[..., k * rows : (k + 1) * rows]
        return s

    def recurrence(self, p: Parameters, s: Tensor) -> tuple[Tensor, Tensor]:
        gates = self._gates(s)
        f, z = gates["f"], gates["z"]
        i = gates.get("i", -f)
        return f.sigmoid(), i.sigmoid() * z.tanh()

    def read(self, p: Parameters, s: Tensor, h: Tensor) -> Tensor:
        if self.pooling == "f":
            return h
        return self._gates(s)["o"].sigmoid() * h

    def _gates(self, s: Tensor) -> dict[str, Tensor]:
        names = GATES[self.pooling]
        return dict(zip(names, s.chunk(len(names), dim=-1), strict=True))
