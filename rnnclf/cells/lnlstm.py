"""Long short-term memory with layer normalisation.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import Paper, Published
from rnnclf.cells.initializers import ones, zeros
from rnnclf.cells.lstm import LSTM, LSTMState
from rnnclf.cells.parameters import Parameters, ParameterSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class LayerNormLSTM(LSTM):
    """LSTM with layer normalisation of its preactivations and its memory.

    a_t = k_x * N(W x_t + v) + k_h * N(U h_{t-1}) + b
    i_t, f_t, g_t, o_t = the four blocks of H elements in a_t
    c_t = sigmoid(f_t) * c_{t-1} + sigmoid(i_t) * tanh(g_t)
    h_t = sigmoid(o_t) * tanh(k_c * N(c_t) + b_c)
    N(s) = (s - mean(s)) / sqrt(mean((s - mean(s))^2) + 1e-5)     over all elements of s: 4·H, 4·H and H

    The output is h_t. W and v are input_weight and input_bias, U is recurrent_weight and b is bias, all
    in blocks of H rows: i, f, g, o. The gains k_x, k_h and k_c are input_gain, recurrent_gain and
    cell_gain, which start at 1; b_c is cell_bias. b starts as in the cell `lstm`, v and b_c at 0.

    The four blocks are normalised together, as in the paper. Differs from its equations: there is a bias v,
    because without it N would reduce a single input feature to its sign (the authors' code has one, tied to
    b), and one bias b instead of three that are only ever added. N needs more than one element: with
    hidden_size 1 the output is the gated constant tanh(b_c).
    """

    name: str = "lnlstm"

    paper: ClassVar = Paper("Layer Normalization", "Ba et al.", 2016, "https://arxiv.org/abs/1607.06450")
    published: ClassVar[tuple[Published, ...]] = ()
    export_tolerance: ClassVar[float] = 1e-3  # memories that are nearly constant are normalised

    @property
    def formula(self) -> str:
        return "4*h*(n + h + 4) + 2*h"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        size, rows = self.hidden_size, len(self.gates) * self.hidden_size
        return {
            **super().parameters(input_size),
            "input_bias": ParameterSpec((rows,), zeros),
            "input_gain": ParameterSpec((rows,), ones),
            "recurrent_gain": ParameterSpec((rows,), ones),
            "cell_gain": ParameterSpec((size,), ones),
            "cell_bias": ParameterSpec((size,), zeros),
        }

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        import torch

        sums = torch.nn.functional.linear(x, p.input_weight, p.input_bias)
        return _normalised(sums, p.input_gain, p.bias)

    def step(self, p: Parameters, z: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        a = z + _normalised(state.h @ p.recurrent_weight.t(), p.recurrent_gain)
        i, f, g, o = a.chunk(4, dim=-1)
        c_BH = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
        h_BH = o.sigmoid() * _normalised(c_BH, p.cell_gain, p.cell_bias).tanh()
        return h_BH, LSTMState(h_BH, c_BH)


def _normalised(sums: Tensor, gain: Tensor, bias: Tensor | None = None) -> Tensor:
    import torch

    return torch.nn.functional.layer_norm(sums, gain.shape, gain, bias, eps=1e-5)
