"""Every cell, by the name used on the command line, in the families of `rnnclf list cells`."""

from rnnclf.cells.antisym import AntisymmetricRNN
from rnnclf.cells.base import AffineCell, Cell, GatedCell, Paper, Published
from rnnclf.cells.basic import Basic
from rnnclf.cells.cfc import CfC
from rnnclf.cells.cornn import CoRNN
from rnnclf.cells.esn import ESN
from rnnclf.cells.exprnn import ExpRNN
from rnnclf.cells.fastgrnn import FastGRNN
from rnnclf.cells.gru import GRU
from rnnclf.cells.indrnn import IndRNN
from rnnclf.cells.irnn import IRNN
from rnnclf.cells.lem import LEM
from rnnclf.cells.linear import LinearCell, TimeInvariantCell
from rnnclf.cells.linoss import LinOSS
from rnnclf.cells.lipschitz import LipschitzRNN
from rnnclf.cells.lmu import LMU
from rnnclf.cells.lnlstm import LayerNormLSTM
from rnnclf.cells.lru import LRU
from rnnclf.cells.lstm import LSTM
from rnnclf.cells.mamba import Mamba
from rnnclf.cells.mgu import MGU
from rnnclf.cells.minimal import MinGRU, MinLSTM
from rnnclf.cells.parameters import Parameters, ParameterSpec, State
from rnnclf.cells.peephole import Peephole
from rnnclf.cells.qrnn import QRNN
from rnnclf.cells.refined import URGRU, URLSTM
from rnnclf.cells.rglru import RGLRU
from rnnclf.cells.s4d import S4D
from rnnclf.cells.s5 import S5
from rnnclf.cells.slstm import SLSTM
from rnnclf.cells.sru import SRU
from rnnclf.cells.ugrnn import UGRNN
from rnnclf.cells.unicornn import UnICORNN
from rnnclf.registry import Registry

__all__ = [
    "CELLS",
    "AffineCell",
    "Cell",
    "GatedCell",
    "LinearCell",
    "Paper",
    "ParameterSpec",
    "Parameters",
    "Published",
    "State",
    "TimeInvariantCell",
]

CELLS: Registry[type[Cell]] = Registry(
    "cell",
    {
        "basic": Basic,
        "irnn": IRNN,
        "indrnn": IndRNN,
        "lstm": LSTM,
        "peephole": Peephole,
        "lnlstm": LayerNormLSTM,
        "gru": GRU,
        "mgu": MGU,
        "ugrnn": UGRNN,
        "urlstm": URLSTM,
        "urgru": URGRU,
        "fastgrnn": FastGRNN,
        "slstm": SLSTM,
        "antisym": AntisymmetricRNN,
        "cornn": CoRNN,
        "unicornn": UnICORNN,
        "lem": LEM,
        "lipschitz": LipschitzRNN,
        "cfc": CfC,
        "exprnn": ExpRNN,
        "lmu": LMU,
        "esn": ESN,
        "mingru": MinGRU,
        "minlstm": MinLSTM,
        "sru": SRU,
        "qrnn": QRNN,
        "rglru": RGLRU,
        "lru": LRU,
        "s4d": S4D,
        "s5": S5,
        "linoss": LinOSS,
        "mamba": Mamba,
    },
)
