"""The basic cell started as the identity.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rnnclf.cells.base import Paper, Published
from rnnclf.cells.basic import Basic
from rnnclf.cells.initializers import INPUT_INITS, RECURRENT_INITS
from rnnclf.options import option


@dataclass
class IRNN(Basic):
    """Elman network that starts by keeping its state: relu and identity.

    h_t = relu(W x_t + U h_{t-1} + b)       U starts as the identity matrix

    The output is h_t. The cell `basic` with other defaults: W starts normal with standard deviation
    0.001, b at zero. input_weight is W, recurrent_weight is U, bias is b.
    """

    name: str = "irnn"
    nonlinearity: str = option("relu", "f in the equation", choices=("tanh", "relu"))
    input_init: str = option("gaussian", "how the input weights start", choices=INPUT_INITS)
    recurrent_init: str = option("identity", "how the recurrent weights start", choices=RECURRENT_INITS)

    paper: ClassVar = Paper(
        "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units",
        "Le et al.",
        2015,
        "https://arxiv.org/abs/1504.00941",
    )
    published: ClassVar[tuple[Published, ...]] = (
        Published("sMNIST", 97.0, "the paper", "hidden 100"),
        Published("psMNIST", 82.0, "the paper", "hidden 100"),
    )
