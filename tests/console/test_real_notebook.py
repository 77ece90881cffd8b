"""A notebook with a real kernel: what stands below its cells when it has been run."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

CELLS = (
    "import numpy as np; from rnnclf import RNNClassifier, load_config, train\n"
    "X, y = np.random.default_rng(0).normal(size=(200, 9, 2)), np.arange(200) % 2\n"
    "model = RNNClassifier(hidden=4, epochs=30, threads=1).fit(X, y)",
    "for seed in range(3):\n"
    "    RNNClassifier(hidden=4, epochs=30, threads=1, seed=seed).fit(X, y)\n"
    "    print('seed', seed)",
    "train(load_config(['dataset=digits', 'hidden=4', 'epochs=2', 'threads=1']), 'run')",
)


def test_each_cell_has_one_bar_at_its_end_and_nothing_else_that_was_not_printed():
    notebooks = pytest.importorskip("nbformat").v4
    client = pytest.importorskip("nbclient").NotebookClient
    pytest.importorskip("ipykernel")
    notebook = notebooks.new_notebook(cells=[notebooks.new_code_cell(cell) for cell in CELLS])
    client(notebook, timeout=120, kernel_name="python3").execute()
    shown = [cell.outputs for cell in notebook.cells]
    bars = [[o.data["text/plain"] for o in outputs if o.output_type == "display_data"] for outputs in shown]
    starts = ("epoch 30/30, ", "model 3: epoch 30/30, ", "epoch 2/2, ")
    for (bar,), start in zip(bars, starts, strict=True):
        assert bar.strip("━ ").startswith(start)
        assert "·" not in bar
    printed = ["".join(o.text for o in outputs if o.output_type == "stream") for outputs in shown]
    assert printed == ["", "seed 0\nseed 1\nseed 2\n", ""]
    (value,) = [o.data["text/plain"] for o in shown[2] if o.output_type == "execute_result"]
    assert value.startswith("Report(folder=")
    assert len(value) < 1000
    assert "\x1b" not in str(shown)
