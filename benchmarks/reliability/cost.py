"""What checkpoints and guards cost, as shares of the time that an epoch takes.

    RNNCLF_DATA=/data python benchmarks/reliability/cost.py                        # MNIST by rows, 3 epochs
    python benchmarks/reliability/cost.py dataset=digits epochs=20 checkpoint.every=1steps

Times every call that writes a file of the run while it trains, and every look at a loss and a gradient.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from rnnclf.guards import Losses
from rnnclf.hydra_app import load_config
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.saving import Saver
from rnnclf.workflows.train import train

spent: Counter[str] = Counter()
calls: Counter[str] = Counter()


def timed(owner: Any, name: str, what: str) -> None:
    function: Callable[..., Any] = getattr(owner, name)

    def measured(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[what] += time.perf_counter() - began
            calls[what] += 1

    setattr(owner, name, measured)


def main() -> None:
    timed(Saver, "save", "last.safetensors")
    timed(Saver, "write_best", "best.safetensors")
    timed(Saver, "write_epochs", "epochs.csv")
    timed(Losses, "spiked", "guard of the loss")
    timed(nn.utils, "get_total_norm", "norm of the gradients (part of clipping, too)")
    config = load_config(sys.argv[1:] or ["epochs=3", "cell=basic", "hidden=150"])
    with tempfile.TemporaryDirectory() as folder:
        report = train(config, RunFolder(Path(folder)))
    seconds = report.results["epoch_seconds"]
    print(f"{len(seconds)} epochs of {sum(seconds) / len(seconds):.3f} s")
    for what, whole in spent.items():
        share = whole / (sum(seconds) + sum(spent[file] for file in spent if "." in file))
        print(f"{what}: {calls[what]} times {1000 * whole / calls[what]:.3f} ms, {share:.3%} of the time")


if __name__ == "__main__":
    main()
