"""A gated cell with matrices shared by all gates.  Shapes: B batch, I inputs, H hidden, R rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import Cell, Paper
from rnnclf.cells.initializers import ones
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class FastGRNN(Cell):
    """Gated cell whose gate and candidate share matrices, optionally low-rank.

    a_t = W x_t + U h_{t-1}
    z_t = sigmoid(a_t + b_z)                    gate
    c_t = tanh(a_t + b_c)                       candidate
    h_t = (sigmoid(zeta) * (1 - z_t) + sigmoid(nu)) * c_t + z_t * h_{t-1}

    The output is h_t. W is input_weight, U is recurrent_weight, b_z is gate_bias and b_c is
    candidate_bias; zeta and nu are scalars.

    With input_rank or recurrent_rank, W or U is a product of matrices (h, rank) and (rank, n) or (rank, h).
    That saves parameters if input_rank is below h n / (h + n), and recurrent_rank below h / 2.

    W = input_expansion input_weight
    U = recurrent_expansion recurrent_weight

    Differs from the paper: no sparsity and no quantisation.
    """

    name: str = "fastgrnn"
    input_rank: int | None = option(None, "rank of W; none for a full matrix", low=1, high=1_000_000)
    recurrent_rank: int | None = option(None, "rank of U; none for a full matrix", low=1, high=1_000_000)

    paper: ClassVar = Paper(
        "FastGRNN: A Fast, Accurate, Stable and Tiny Kilobyte Sized Gated Recurrent Neural Network",
        "Kusupati et al.",
        2018,
        "https://arxiv.org/abs/1901.02358",
    )
    family: ClassVar = "gated"
    recurrent_weights: ClassVar[tuple[str, ...]] = ("recurrent_weight",)

    @property
    def formula(self) -> str:
        input_part = "h*n" if self.input_rank is None else "input_rank*(h + n)"
        recurrent_part = "h*h" if self.recurrent_rank is None else "2*recurrent_rank*h"
        return f"{input_part} + {recurrent_part} + 2*h + 2"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        hidden = self.hidden_size
        return {
            **_matrix("input", hidden, input_size, self.input_rank),
            **_matrix("recurrent", hidden, hidden, self.recurrent_rank),
            "gate_bias": ParameterSpec((hidden,), ones),
            "candidate_bias": ParameterSpec((hidden,), ones),
            "zeta": ParameterSpec((), ones),
            "nu": ParameterSpec((), lambda nu: nu.fill_(-4)),
        }

    def prepare(self, p: Parameters) -> Parameters:
        return Parameters(**{**vars(p), "zeta": p.zeta.sigmoid(), "nu": p.nu.sigmoid()})

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        from torch.nn.functional import linear

        a = linear(x, p.input_weight)
        return a if self.input_rank is None else linear(a, p.input_expansion)

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if self.recurrent_rank is None:
            a_BH = z.addmm(state, p.recurrent_weight.t())
        else:
            a_BH = z.addmm(state @ p.recurrent_weight.t(), p.recurrent_expansion.t())
        gate = (a_BH + p.gate_bias).sigmoid()
        candidate = (a_BH + p.candidate_bias).tanh()
        h_BH = (p.zeta * (1 - gate) + p.nu) * candidate + gate * state
        return h_BH, h_BH


def _matrix(name: str, rows: int, columns: int, rank: int | None) -> dict[str, ParameterSpec]:
    """The parameters of a matrix, full or as a product of two."""
    if rank is None:
        return {f"{name}_weight": ParameterSpec((rows, columns), _small_normal)}
    return {
        f"{name}_weight": ParameterSpec((rank, columns), _small_normal),
        f"{name}_expansion": ParameterSpec((rows, rank), _small_normal),
    }


def _small_normal(weight: Tensor) -> None:
    weight.normal_(0, 0.1)
