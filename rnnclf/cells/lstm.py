"""Long short-term memory.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rnnclf.cells.base import GatedCell, Paper, Published
from rnnclf.cells.parameters import Parameters
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor

    from rnnclf.engine.fused_steps import FusedSteps


class LSTMState(NamedTuple):
    """The hidden state and the memory of an LSTM, both (B, H)."""

    h: Tensor
    c: Tensor


@dataclass
class LSTM(GatedCell):
    """Long short-term memory: a memory written, kept and read through gates.

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)      input gate
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)      forget gate
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)         candidate
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)      output gate
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

    The output is h_t. W, U and b are input_weight, recurrent_weight and bias, in blocks of H rows:
    i, f, g, o. With the forget gate of Gers et al. 2000; as torch.nn.LSTMCell, but with one bias instead
    of two that are only ever added.

    b_f starts at forget_bias (Jozefowicz et al. 2015), so that the forget gates are open at first. With
    chrono, b_f starts at the logarithm of numbers drawn uniformly between 1 and chrono - 1, and b_i at
    -b_f, so that units remember for up to about chrono steps (Tallec & Ollivier 2018,
    https://arxiv.org/abs/1804.11188).
    """

    name: str = "lstm"
    forget_bias: float = option(1.0, "initial b_f; 1 starts with open forget gates", low=-100, high=100)
    chrono: int | None = option(
        None, "longest memory in steps, for the chrono initialisation; replaces forget_bias", low=3
    )

    paper: ClassVar = Paper(
        "Long Short-Term Memory",
        "Hochreiter & Schmidhuber",
        1997,
        "https://doi.org/10.1162/neco.1997.9.8.1735",
    )
    published: ClassVar[tuple[Published, ...]] = (
        Published("MNIST rows", 98.9, "https://github.com/roatienza/Deep-Learning-Experiments", "hidden 256"),
        Published("sMNIST", 98.9, "https://arxiv.org/abs/2111.00396", "as quoted there"),
        Published("sMNIST", 98.2, "https://arxiv.org/abs/1511.06464"),
        Published("sMNIST", 87.2, "https://arxiv.org/abs/1803.01271", "70,000 parameters"),
        Published("psMNIST", 95.1, "https://arxiv.org/abs/2111.00396", "as quoted there"),
        Published("psMNIST", 92.9, "https://arxiv.org/abs/2610.10690", "270,000 parameters; as quoted there"),
        Published("psMNIST", 88.0, "https://arxiv.org/abs/1511.06464"),
        Published("sCIFAR", 63.0, "https://arxiv.org/abs/2111.00396", "as quoted there"),
    )
    family: ClassVar = "gated"
    gates: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")

    def fill_bias(self, bias: Tensor) -> None:
        super().fill_bias(bias)
        b_i, b_f, _, _ = bias.chunk(4)
        if self.chrono is None:
            b_f.fill_(self.forget_bias)
        else:
            b_f.uniform_(1, self.chrono - 1).log_()
            b_i.copy_(-b_f)

    def initial_state(self, x_BI: Tensor) -> LSTMState:
        zeros_BH = x_BI.new_zeros(x_BI.shape[0], self.hidden_size)
        return LSTMState(zeros_BH, zeros_BH)

    def fused_steps(self) -> type[FusedSteps]:
        from rnnclf.engine.fused_steps import FusedLSTM

        return FusedLSTM

    def native_layer(self) -> str:
        return "lstm"

    def step(self, p: Parameters, z: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        i, f, g, o = z.addmm(state.h, p.recurrent_weight.t()).chunk(4, dim=-1)
        c_BH = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
        h_BH = o.sigmoid() * c_BH.tanh()
        return h_BH, LSTMState(h_BH, c_BH)
