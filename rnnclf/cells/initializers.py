"""How weights start.  Each initialiser fills one gate's block: (H, I) of the input weights, or (H, H)
of the recurrent ones.

torch's own default draws everything from U(-1/√H, 1/√H): a tanh cell of 150 units then starts with a
spectral radius of about 0.6, so that hardly a gradient reaches the first steps. Orthogonal recurrent
weights keep the length of the state (Saxe et al. 2014, https://arxiv.org/abs/1312.6120).
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
    """The sizes of the cell that a block of weights belongs to."""

    inputs: int
    hidden: int
    gates: int


Initializer: TypeAlias = "Callable[[Tensor, Fan], None]"


def zeros(parameter: Tensor) -> None:
    """All zero, as biases start."""
    parameter.zero_()


def ones(parameter: Tensor) -> None:
    """All one, as gains start."""
    parameter.fill_(1)


def log_uniform(low: float, high: float) -> Callable[[Tensor], None]:
    """Fills with the logarithms of numbers between low and high, spread evenly over the magnitudes."""

    def fill(parameter: Tensor) -> None:
        parameter.uniform_(math.log(low), math.log(high))

    return fill


def normal(variance: float) -> Callable[[Tensor], None]:
    """Fills from the normal distribution of that variance around 0."""

    def fill(parameter: Tensor) -> None:
        parameter.normal_(std=math.sqrt(variance))

    return fill


def uniform(fan: int) -> Callable[[Tensor], None]:
    """Fills uniformly in ±1/√fan, as torch.nn.Linear does for `fan` inputs."""

    def fill(parameter: Tensor) -> None:
        parameter.uniform_(-1 / math.sqrt(fan), 1 / math.sqrt(fan))

    return fill


def glorot(block: Tensor, fan: Fan) -> None:
    """Uniform, with the variance 2 / (rows + columns) of this gate's block."""
    limit = math.sqrt(6 / (block.shape[0] + block.shape[1]))
    block.uniform_(-limit, limit)


def orthogonal(block: Tensor, fan: Fan) -> None:
    """Random, with orthogonal rows or columns: singular values 1."""
    from torch.nn import init

    init.orthogonal_(block)


def identity(block: Tensor, fan: Fan) -> None:
    """The identity matrix, as in IRNN: the state is kept as it is.

    Le et al. 2015, https://arxiv.org/abs/1504.00941
    """
    from torch.nn import init

    init.eye_(block)


def gaussian(block: Tensor, fan: Fan) -> None:
    """Normal with standard deviation 0.001, as the input weights of IRNN: the state starts by keeping
    what it has.

    Le et al. 2015, https://arxiv.org/abs/1504.00941
    """
    block.normal_(0, 0.001)


def torch_default(block: Tensor, fan: Fan) -> None:
    """Uniform in ±1/√H, as torch.nn.RNN, LSTM and GRU start."""
    limit = 1 / math.sqrt(fan.hidden)
    block.uniform_(-limit, limit)


def tensorflow1(block: Tensor, fan: Fan) -> None:
    """Glorot-uniform over TensorFlow 1's one kernel for input and state, (I + H, G·H)."""
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
