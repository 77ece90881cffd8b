"""Weight initialisation.  Each initialiser fills the block of one gate: (H, I) of the input weights, or
(H, H) of the recurrent weights.

torch's default draws everything from U(-1/√H, 1/√H): a tanh cell of 150 units then starts with a spectral
radius of about 0.6, so that hardly any gradient reaches the first steps. Orthogonal recurrent weights
preserve the norm of the state (Saxe et al. 2014, https://arxiv.org/abs/1312.6120).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from rnnclf.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Fan:
    """The sizes of the cell to which a block of weights belongs."""

    inputs: int
    hidden: int
    gates: int


Initializer: TypeAlias = "Callable[[Tensor, Fan], None]"


def zeros(parameter: Tensor) -> None:
    """Fills with zeros, for biases."""
    parameter.zero_()


def ones(parameter: Tensor) -> None:
    """Fills with ones, for gains."""
    parameter.fill_(1)


def log_uniform(low: float, high: float) -> Callable[[Tensor], None]:
    """Fills with the logarithms of numbers drawn log-uniformly between low and high."""

    def fill(parameter: Tensor) -> None:
        parameter.uniform_(math.log(low), math.log(high))

    return fill


def normal(variance: float) -> Callable[[Tensor], None]:
    """Fills from a normal distribution with mean 0 and this variance."""

    def fill(parameter: Tensor) -> None:
        parameter.normal_(std=math.sqrt(variance))

    return fill


def uniform(fan: int) -> Callable[[Tensor], None]:
    """Fills uniformly in ±1/√fan, as torch.nn.Linear does for `fan` inputs."""

    def fill(parameter: Tensor) -> None:
        parameter.uniform_(-1 / math.sqrt(fan), 1 / math.sqrt(fan))

    return fill


def glorot(block: Tensor, fan: Fan) -> None:
    """Glorot-uniform: variance 2 / (rows + columns) of this gate's block."""
    limit = math.sqrt(6 / (block.shape[0] + block.shape[1]))
    block.uniform_(-limit, limit)


def orthogonal(block: Tensor, fan: Fan) -> None:
    """A random matrix with orthonormal rows or columns: all singular values are 1."""
    from torch.nn import init

    init.orthogonal_(block)


def identity(block: Tensor, fan: Fan) -> None:
    """The identity matrix, as in IRNN: the cell starts by keeping its state.

    Le et al. 2015, https://arxiv.org/abs/1504.00941
    """
    from torch.nn import init

    init.eye_(block)


def gaussian(block: Tensor, fan: Fan) -> None:
    """Normal with standard deviation 0.001, as for the input weights of IRNN: at first the inputs hardly
    change the state.

    Le et al. 2015, https://arxiv.org/abs/1504.00941
    """
    block.normal_(0, 0.001)


def torch_default(block: Tensor, fan: Fan) -> None:
    """Uniform in ±1/√H, the default of torch.nn.RNN, LSTM and GRU."""
    limit = 1 / math.sqrt(fan.hidden)
    block.uniform_(-limit, limit)


def tensorflow1(block: Tensor, fan: Fan) -> None:
    """Glorot-uniform over one kernel for input and state, (I + H, G·H), as in TensorFlow 1."""
    limit = math.sqrt(6 / (fan.inputs + fan.hidden + fan.gates * fan.hidden))
    block.uniform_(-limit, limit)


INPUT_INITS: Registry[Initializer] = Registry(
    "input initialiser",
    {
        "glorot": glorot,
        "orthogonal": orthogonal,
        "gaussian": gaussian,
        "torch": torch_default,
        "tensorflow1": tensorflow1,
    },
)

RECURRENT_INITS: Registry[Initializer] = Registry(
    "recurrent initialiser",
    {
        "orthogonal": orthogonal,
        "glorot": glorot,
        "identity": identity,
        "torch": torch_default,
        "tensorflow1": tensorflow1,
    },
)
