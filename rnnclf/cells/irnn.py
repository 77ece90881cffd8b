"""The basic cell with recurrent weights initialised to the identity.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rnnclf.cells.base import Paper, Published
from rnnclf.cells.basic import Basic
from rnnclf.cells.initializers import INPUT_INITS, RECURRENT_INITS
from rnnclf.options import option


@dataclass
class IRNN(Basic):
    """Elman network with relu and recurrent weights initialised to the identity.

    h_t = relu(W x_t + U h_{t-1} + b)       U is initialised to the identity matrix

    The output is h_t. This is the cell `basic` with other defaults: W is drawn from a normal distribution
    with standard deviation 0.001, b starts at 0. W is input_weight, U is recurrent_weight, b is bias.
    """

    name: str = "irnn"
    nonlinearity: str = option("relu", "the nonlinearity, f in the equation", choices=("tanh", "relu"))
    input_init: str = option("gaussian", "initialisation of the input weights", choices=INPUT_INITS)
    recurrent_init: str = option(
        "identity", "initialisation of the recurrent weights", choices=RECURRENT_INITS
    )

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
