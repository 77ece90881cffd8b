"""A small classifier, its data and its training, for the tests of training."""

import math
from dataclasses import replace

import torch

from rnnclf.cells import CELLS
from rnnclf.data import SequenceDataset, padded_dataset
from rnnclf.errors import DivergedError
from rnnclf.model import SequenceClassifier
from rnnclf.optim import Adam, Constant
from rnnclf.stack import Stack
from rnnclf.training import epoch as epoch_steps
from rnnclf.training.loop import fit
from rnnclf.training.recipe import Recipe
from rnnclf.training.state import Training

STEPS, INPUT, CLASSES = 5, 2, 3


def sequences(count=30, seed=0, ragged=False):
    """Noise with a class-dependent mean."""
    generator = torch.Generator().manual_seed(seed)
    y_N = torch.arange(count) % CLASSES
    x_NTI = torch.randn(count, STEPS, INPUT, generator=generator) + y_N[:, None, None]
    lengths_N = torch.randint(1, STEPS + 1, (count,), generator=generator) if ragged else None
    return padded_dataset(x_NTI, y_N, ("a", "b", "c"), lengths_N)


def x_of(data: SequenceDataset) -> torch.Tensor:
    """All sequences with their padding, (N, T, I)."""
    return data.x_SI.view(-1, STEPS, INPUT)


def classifier(name="basic", seed=0, hidden=6, **options):
    torch.manual_seed(seed)
    return SequenceClassifier(CELLS[name](hidden_size=hidden), INPUT, CLASSES, Stack(**options))


def recipe(**changes):
    return Recipe(**{"epochs": 3, "batch_size": 8, "optimizer": Adam(), "schedule": Constant(), **changes})


def trained(training, data=None, validation=None, seed=1, **options):
    """All results of a training that starts from the given seed."""
    torch.manual_seed(seed)
    data = data or sequences()
    return list(fit(training, data, validation or data, **options))


def without_seconds(results):
    return [replace(result, seconds=0.0) for result in results]


# Looking seldom


def looking(every, monkeypatch):
    """Has the host look at the rows of so many steps at once, as it does where training is on a GPU."""
    monkeypatch.setattr(epoch_steps, "_read_interval", lambda device: every)


def outcome(plan, data, classifier_options=None, **options):
    """All that training comes to, and the tensors and the state that it leaves; or why it ended."""
    fresh = Training(classifier(**(classifier_options or {})), plan)
    try:
        results = without_seconds(trained(fresh, data, validation=sequences(), **options))
    except DivergedError as error:
        results = str(error)
    state = fresh.state()
    state["so_far"]["seconds"] = 0.0
    return results, {name: tensor.clone() for name, tensor in fresh.tensors().items()}, state


def assert_equal(one, other):
    assert one[0] == other[0]
    assert one[2] == other[2]
    assert one[1].keys() == other[1].keys()
    for name, tensor in one[1].items():
        assert torch.equal(tensor, other[1][name]) or tensor.isnan().any(), name


def broken_at(place):
    data = sequences(90)
    x_of(data)[place, 2, 0] = math.nan
    return data
