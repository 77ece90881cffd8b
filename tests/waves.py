"""Small sequences given from Python, and small classifiers for them."""

from __future__ import annotations

import numpy as np
import torch

from rnnclf import RNNClassifier


def small(**words: object) -> RNNClassifier:
    return RNNClassifier(**{"hidden": 4, "epochs": 2, "batch_size": 16, **words})


def waves(n: int = 60, steps: int = 7, channels: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x (N, T, C) whose mean tells the class, and labels 0, 1, 2."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return random.normal(size=(n, steps, channels)) + y[:, None, None], y


def ragged(n: int = 60, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    x, y = waves(n, 9, seed=seed)
    return [sequence[: 3 + place % 6] for place, sequence in enumerate(x)], y


def weights(model: RNNClassifier) -> dict[str, torch.Tensor]:
    return model.model_.state_dict()


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


LABELS = [
    ([3, 10, 2], [2, 3, 10]),
    (["b", "10", "9"], ["10", "9", "b"]),
    ([1.0, 10.0, 2.0], [1.0, 2.0, 10.0]),
    ([True, False, True], [False, True]),
    ([("x", 1), ("a", 2), ("a", 1)], [("a", 1), ("a", 2), ("x", 1)]),
    ([3, "x", ("a",)], None),
]
