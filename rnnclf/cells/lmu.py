"""Legendre memory unit.  Shapes: B batch, I inputs, H hidden, D memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rnnclf.cells.base import Cell, Paper, Published
from rnnclf.cells.initializers import zeros
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


class LMUState(NamedTuple):
    """The hidden state (B, H) and the memory (B, D), the Legendre coefficients of the window."""

    h: Tensor
    m: Tensor


@dataclass
class LMU(Cell):
    """Legendre memory unit: a sliding window of the past, plus a tanh state.

    u_t = e_x x_t + e_h h_{t-1} + e_m m_{t-1}               a scalar
    m_t = P m_{t-1} + q u_t                                 represents the last theta steps of u
    h_t = tanh(W_x x_t + W_h h_{t-1} + W_m m_t)

    The output is h_t. P is memory_decay and q is memory_input, both fixed: they solve the differential
    equation of the window's Legendre coefficients m, with u constant over each step (zero-order hold):

    theta dm/dt = A m + B u
    A_ij = -(2i + 1) where i < j, else (2i + 1) (-1)^(i - j + 1)        i, j = 0, …, memory_size - 1
    B_i = (2i + 1) (-1)^i
    P = exp(A / theta)
    q = A^-1 (P - 1) B

    The vectors e_x, e_h, e_m are input_encoder, hidden_encoder, memory_encoder; the matrices W_x, W_h,
    W_m are input_weight, recurrent_weight, memory_weight. There are no biases.

    Set theta to about the length of your sequences: inputs more than theta steps ago are forgotten, and a
    theta far above the length wastes most coefficients on steps that never occur. The paper uses theta=784
    and memory_size=256 for 784 steps.
    """

    name: str = "lmu"
    memory_size: int = option(32, "number of Legendre coefficients of the window", low=1, high=10_000)
    theta: float = option(
        28.0, "length of the window in steps; about that of the sequences", above=0, high=1e9
    )

    paper: ClassVar = Paper(
        "Legendre Memory Units: Continuous-Time Representation in Recurrent Neural Networks",
        "Voelker et al.",
        2019,
        "https://proceedings.neurips.cc/paper/2019/hash/952285b9b7e7a1be5aa7849f32ffff05-Abstract.html",
    )
    published: ClassVar[tuple[Published, ...]] = (
        Published(
            "psMNIST", 97.15, "https://github.com/nengo/keras-lmu", "hidden 212, memory_size 256, theta 784"
        ),
    )
    family: ClassVar = "structured"
    recurrent_weights: ClassVar[tuple[str, ...]] = ("recurrent_weight",)
    zoneout: ClassVar[bool] = False

    @property
    def formula(self) -> str:
        return "n + h + memory_size + h*(n + h + memory_size)"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        hidden, memory = self.hidden_size, self.memory_size
        return {
            "input_encoder": ParameterSpec((input_size,), _lecun_uniform),
            "hidden_encoder": ParameterSpec((hidden,), _lecun_uniform),
            "memory_encoder": ParameterSpec((memory,), zeros),
            "input_weight": ParameterSpec((hidden, input_size), _glorot_normal),
            "recurrent_weight": ParameterSpec((hidden, hidden), _glorot_normal),
            "memory_weight": ParameterSpec((hidden, memory), _glorot_normal),
            "memory_decay": ParameterSpec(
                (memory, memory), lambda w: w.copy_(self.held()[:, :-1]), trained=False
            ),
            "memory_input": ParameterSpec((memory,), lambda w: w.copy_(self.held()[:, -1]), trained=False),
        }

    def held(self) -> Tensor:
        """[P, q] (memory, memory + 1), from the matrix exponential of [[A, B], [0, 0]] / theta."""
        import torch

        memory = self.memory_size
        i = torch.arange(memory, dtype=torch.float64, device="cpu").unsqueeze(1)
        j = i.t()
        system = i.new_zeros(memory + 1, memory + 1)
        system[:-1, :-1] = (2 * i + 1) * torch.where(i < j, -1.0, (-1.0) ** (i - j + 1))
        system[:-1, -1:] = (2 * i + 1) * (-1.0) ** i
        exponential: Tensor = torch.linalg.matrix_exp(system / self.theta)
        return exponential[:-1]

    def prepare(self, p: Parameters) -> Parameters:
        import torch

        return Parameters(
            **vars(p),
            encoded_input_weight=torch.cat((p.input_weight, p.input_encoder.unsqueeze(0))),
            memory_to_memory=p.memory_decay.addr(p.memory_input, p.memory_encoder),  # P + q e_m
        )

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        import torch

        return torch.nn.functional.linear(x, p.encoded_input_weight)

    def initial_state(self, x_BI: Tensor) -> LMUState:
        batch = x_BI.shape[0]
        return LMUState(x_BI.new_zeros(batch, self.hidden_size), x_BI.new_zeros(batch, self.memory_size))

    def step(self, p: Parameters, z: Tensor, state: LMUState) -> tuple[Tensor, LMUState]:
        u_B = z[:, -1].addmv(state.h, p.hidden_encoder)  # without e_m m, which is part of memory_to_memory
        m_BD = (u_B.unsqueeze(-1) * p.memory_input).addmm(state.m, p.memory_to_memory.t())
        a_BH = z[:, :-1].addmm(state.h, p.recurrent_weight.t())
        h_BH = a_BH.addmm(m_BD, p.memory_weight.t()).tanh()
        return h_BH, LMUState(h_BH, m_BD)


def _lecun_uniform(encoder: Tensor) -> None:
    limit = math.sqrt(3 / encoder.shape[0])
    encoder.uniform_(-limit, limit)


def _glorot_normal(weight: Tensor) -> None:
    weight.normal_(0, math.sqrt(2 / sum(weight.shape)))
