"""Every cell, by the name used on the command line."""

from rnnclf.cells.base import Cell, GatedCell, Paper, Parameters, ParameterSpec, State
from rnnclf.cells.basic import Basic
from rnnclf.cells.gru import GRU
from rnnclf.cells.lstm import LSTM
from rnnclf.registry import Registry

__all__ = ["CELLS", "Cell", "GatedCell", "Paper", "ParameterSpec", "Parameters", "State"]

CELLS: Registry[type[Cell]] = Registry("cell", {"basic": Basic, "lstm": LSTM, "gru": GRU})
