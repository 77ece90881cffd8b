"""Does it help to begin with the weights of a trained model? Where it does, where it does not, and its time.

    python benchmarks/init/measure.py > benchmarks/init/results.jsonl

Two tasks with few sequences, of the digits of scikit-learn read row by row, each learned with new weights,
with init, and with init and freeze=cell:

- the same ten digits as another camera might see them, a column further right, darker and with noise, from 50
  sequences; the first model learned 898 others as they are;
- the digits 5 to 9 from 25 sequences; the first model learned 0 to 4.

Every line is one model: its accuracy on sequences that it has not seen. The lines of `time` are the processor
time of a training step of 150 sequences of 28 steps, the median of 30, with all weights trained and with the
head alone; and that of three epochs of training an lstm, the median of 3, where steps that train all weights
are compiled.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from rnnclf import RNNClassifier
from rnnclf.cells import CELLS
from rnnclf.model import SequenceClassifier

SEEDS = range(5)
WORDS: dict[str, Any] = {"cell": "gru", "hidden": 64, "batch_size": 16, "optimizer__lr": 0.003, "threads": 1}
WAYS = ({}, {"init": True}, {"init": True, "freeze": "cell"})


Task = tuple[Any, Any, Any, Any]
"""Training sequences and their labels, test sequences and theirs."""


def halves(train: int, classes: range, seed: int) -> Task:
    x, y = load_digits(return_X_y=True)
    which = np.isin(y, classes)
    a, b, c, d = train_test_split(
        x[which].reshape(-1, 8, 8), y[which], train_size=train, stratify=y[which], random_state=seed
    )
    return a, c, b, d


def tasks(seed: int) -> dict[str, tuple[Task, Task]]:
    """For each task that of the first model, and the one that goes on from it."""
    x, y, x_rest, y_rest = halves(898, range(10), seed)
    noise = np.random.default_rng(seed).normal(0, 2, x_rest.shape)
    seen = np.roll(x_rest, 1, axis=2) * 0.6 + noise
    a, b, c, d = train_test_split(seen, y_rest, train_size=50, stratify=y_rest, random_state=seed)
    first = halves(800, range(5), seed)
    return {
        "digits of another camera, 50": ((x, y, x_rest, y_rest), (a, c, b, d)),
        "digits 5 to 9, 25": (first, halves(25, range(5, 10), seed)),
    }


def accuracies(seed: int, folder: Path) -> None:
    for task, (before, (x, y, x_test, y_test)) in tasks(seed).items():
        file = folder / f"{task} {seed}"
        RNNClassifier(**WORDS, epochs=15, seed=seed).fit(*before[:2]).save(file)
        for way in WAYS:
            words = WORDS | way | {"seed": seed, "epochs": 5, "updates": 300, "select": "last"}
            if "init" in way:
                words["init"] = str(file)
            score = RNNClassifier(**words).fit(x, y).score(x_test, y_test)
            named = " ".join(key if value is True else f"{key}={value}" for key, value in way.items())
            line = {"task": task, "way": named or "new weights", "seed": seed, "accuracy": round(score, 4)}
            print(json.dumps(line), flush=True)


def step_seconds(name: str, frozen: bool) -> float:
    torch.manual_seed(0)
    model = SequenceClassifier(CELLS[name](hidden_size=150), 28, 10)
    if frozen:
        model.freeze()
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad])
    x_BTI, y_B = torch.randn(150, 28, 28), torch.arange(150) % 10
    found = []
    for _ in range(35):
        began = time.process_time()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x_BTI), y_B).backward()
        optimizer.step()
        found.append(time.process_time() - began)
    return statistics.median(found[5:])


def fit_seconds(folder: Path, **words: Any) -> float:
    """Processor time of training an lstm for three epochs on 3,000 sequences, whose steps can be compiled."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(3000, 28, 28)).astype(np.float32), np.arange(3000) % 10
    if not (folder / "lstm").exists():
        RNNClassifier(cell="lstm", threads=1, epochs=1).fit(x, y).save(folder / "lstm")
    began = time.process_time()
    RNNClassifier(init=str(folder / "lstm"), threads=1, epochs=3, **words).fit(x, y)
    return time.process_time() - began


if __name__ == "__main__":
    torch.set_num_threads(1)
    for cell in ("lstm", "gru", "s4d"):
        whole, head = step_seconds(cell, False), step_seconds(cell, True)
        print(
            json.dumps({"time": cell, "all_ms": round(whole * 1e3, 2), "head_ms": round(head * 1e3, 2)}),
            flush=True,
        )
    with tempfile.TemporaryDirectory() as name:
        whole, head = (
            statistics.median(fit_seconds(Path(name), **w) for _ in range(3))
            for w in ({}, {"freeze": "cell"})
        )
        print(
            json.dumps({"time": "lstm, three epochs", "all_s": round(whole, 2), "head_s": round(head, 2)}),
            flush=True,
        )
        for seed in SEEDS:
            accuracies(seed, Path(name))
