"""Train, compare and trust recurrent sequence classifiers.

    from rnnclf import RNNClassifier, load

    model = RNNClassifier(cell="lstm", hidden=64, epochs=30).fit(X, y)

Each public name is imported when it is first used: `import rnnclf` takes no time, and imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnnclf.cells import Cell, GatedCell, LinearCell
    from rnnclf.console.notebook import train
    from rnnclf.errors import RnnclfError
    from rnnclf.estimator import RNNClassifier, load
    from rnnclf.hydra_app import load_config
    from rnnclf.options import option
    from rnnclf.workflows.evaluate import evaluate

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "GatedCell",
    "LinearCell",
    "RNNClassifier",
    "RnnclfError",
    "evaluate",
    "load",
    "load_config",
    "option",
    "train",
]

_HOME = {
    "Cell": "rnnclf.cells",
    "GatedCell": "rnnclf.cells",
    "LinearCell": "rnnclf.cells",
    "RNNClassifier": "rnnclf.estimator",
    "RnnclfError": "rnnclf.errors",
    "evaluate": "rnnclf.workflows.evaluate",
    "load": "rnnclf.estimator",
    "load_config": "rnnclf.hydra_app",
    "option": "rnnclf.options",
    "train": "rnnclf.console.notebook",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rnnclf' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
