"""The architecture around a cell: layers, readout, normalisation and dropout. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from rnnclf.cells.base import Cell
from rnnclf.data.grid import refuse_layout
from rnnclf.data.layout import PictureLayout
from rnnclf.engine.choose import ENGINES
from rnnclf.errors import ConfigError
from rnnclf.options import Options, option
from rnnclf.readout import READOUTS


@dataclass
class Stack(Options):
    """The options of a SequenceClassifier that do not depend on its cell."""

    axes: str = option(
        "steps",
        "along which axes to read: the steps of a sequence; with both also across them, as the columns of a"
        " picture in rows, by layers of their own; with alternating one layer reads each column, the next"
        " each row of its outputs; both and alternating need sequences with the same number of steps",
        choices=("steps", "both", "alternating"),
    )
    layers: int = option(1, "number of stacked recurrent layers", low=1, high=1000)
    bidirectional: bool = option(False, "also run each layer backward in time")
    residual: bool = option(False, "add the input of each layer but the first to its output")
    norm: str = option(
        "none",
        "normalisation before the head and before each layer but the first",
        choices=("none", "layer", "batch"),
    )
    readout: str = option(
        "last",
        "how the outputs of all steps become one vector: the last, their mean or maximum, or a weighted mean"
        " whose weights are learned (attention)",
        choices=READOUTS,
    )
    readout_layers: str = option(
        "top", "which layers the head reads: the top one, or all of them side by side", choices=("top", "all")
    )
    dropout: float = option(
        0.0, "share of values set to 0 between layers and before the head, in training", low=0, below=1
    )
    input_dropout: float = option(
        0.0, "share of the input values set to 0 at each step, in training", low=0, below=1
    )
    variational: bool = option(False, "let dropout drop the same values at all steps of a sequence")
    recurrent_dropout: float = option(
        0.0, "share of the recurrent weights set to 0 in each batch (DropConnect)", low=0, below=1
    )
    zoneout: float = option(
        0.0, "probability that a unit keeps its previous state at a time step, in training", low=0, below=1
    )
    engine: str = option(
        "auto",
        "what runs the cell along time; auto: the fastest that can",
        choices=("auto", *ENGINES),
        former={"compiled": "machine"},
    )
    precision: str = option(
        "float32",
        "precision of matrix products: tf32 rounds factors to 10 bits, bf16 (recurrent layers only) to 7",
        choices=("float32", "tf32", "bf16"),
    )

    def check_cell(self, cell: Cell) -> None:
        """Raises ConfigError for an option that the cell, or another option, does not support."""
        chosen = f"cell={cell.name}"
        if self.axes == "alternating" and self.readout == "last":
            raise ConfigError(
                "axes=alternating has an output for each place of a picture, of which none is the last: use"
                " readout=max, mean or attention."
            )
        if self.axes == "alternating" and self.layers < 2:
            raise ConfigError(
                "axes=alternating reads rows in the second layer, and layers=1 has none: use layers=2 or"
                " more."
            )
        if self.engine != "auto" and not (engine := ENGINES[self.engine]).installed:
            raise ConfigError(
                f"engine={self.engine} needs {engine.needs}: pip install {engine.needs}, or use engine=auto."
            )
        if self.engine not in ("auto", *cell.engines):
            able = " or ".join(cell.engines)
            raise ConfigError(f"engine={self.engine} cannot run {chosen}, only {able} can: use engine=auto.")
        if self.precision == "bf16" and self.engine != "auto" and ENGINES[self.engine].float32_only:
            able = " or ".join(name for name in cell.engines if not ENGINES[name].float32_only)
            raise ConfigError(
                f"engine={self.engine} computes in float32 only: with precision=bf16 use engine={able} or"
                " engine=auto."
            )
        if self.recurrent_dropout and not cell.recurrent_weights:
            raise ConfigError(
                f"recurrent_dropout drops single recurrent weights; {chosen} has none that could be dropped."
                " Use dropout."
            )
        if self.zoneout and not cell.zoneout:
            raise ConfigError(
                f"zoneout lets single elements of the state keep their old value; {chosen} does not"
                " support that. Use dropout."
            )
        if self.zoneout and self.engine not in ("auto", "loop"):
            raise ConfigError(f"zoneout needs engine=loop or engine=auto, got engine={self.engine}.")

    def check_data(self, layout: PictureLayout | None, crop: float) -> None:
        """Raises ConfigError for data that cannot be read along these axes.

        layout: that of pictures. crop: the smallest share of a sequence that augmentation leaves.
        """
        if self.axes == "steps":
            return
        refuse_layout(self.axes, layout)
        if crop < 1:
            raise ConfigError(
                f"axes={self.axes} needs sequences of the same length, and augment.crop={crop:g} makes them"
                " shorter: use augment.crop=1."
            )
