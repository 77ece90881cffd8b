"""What is built around a cell: its layers, how they are joined, and what is dropped. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from rnnclf.cells.base import Cell
from rnnclf.engine.choose import ENGINES
from rnnclf.errors import ConfigError
from rnnclf.options import Options, option
from rnnclf.readout import READOUTS


@dataclass
class Stack(Options):
    """The options of a SequenceClassifier that do not depend on its cell."""

    layers: int = option(1, "recurrent layers on top of each other", low=1, high=1000)
    bidirectional: bool = option(False, "run each layer backward in time as well")
    residual: bool = option(False, "from the second layer on, add a layer's input to its output")
    norm: str = option(
        "none",
        "what normalises the input of each further layer and of the head",
        choices=("none", "layer", "batch"),
    )
    readout: str = option("last", "how the outputs of all steps become one vector", choices=READOUTS)
    readout_layers: str = option(
        "top", "whether the head sees the top layer or all layers side by side", choices=("top", "all")
    )
    dropout: float = option(0.0, "share of values dropped between layers and before the head", low=0, below=1)
    variational: bool = option(False, "drop the same values between layers at all steps of a sequence")
    recurrent_dropout: float = option(
        0.0, "share of the weights between state and state dropped in each batch", low=0, below=1
    )
    zoneout: float = option(
        0.0, "share of the numbers of the state that keep their old value at a step", low=0, below=1
    )
    engine: str = option(
        "auto",
        "what runs the cell along time",
        choices=("auto", *ENGINES),
    )
    precision: str = option(
        "float32",
        "of the products: tf32 rounds their factors to 10 bits, bf16 (in the recurrent layers) to 7",
        choices=("float32", "tf32", "bf16"),
    )

    def refuse_what_does_not_fit(self, cell: Cell) -> None:
        """Raises ConfigError for an option that the cell cannot follow."""
        chosen = f"cell={cell.name}"
        if self.engine != "auto" and not (engine := ENGINES[self.engine]).installed:
            raise ConfigError(
                f"engine={self.engine} needs {engine.needs.capitalize()}:"
                f" pip install 'rnnclf[{engine.extra}]', or use engine=auto."
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
                f"recurrent_dropout drops single weights between state and state; {chosen} has none"
                " that could be missing. Use dropout."
            )
        if self.zoneout and not cell.zoneout:
            raise ConfigError(
                f"zoneout lets single numbers of the state keep their old value; {chosen} does not"
                " allow that. Use dropout."
            )
        if self.zoneout and self.engine not in ("auto", "loop"):
            raise ConfigError(f"zoneout needs engine=loop or engine=auto, got engine={self.engine}.")
