"""A training that is saved and restored goes on bit for bit."""

import pytest
import torch

from rnnclf import checkpoint
from rnnclf.optim import OPTIMIZERS, SCHEDULES, SGD, RMSprop
from rnnclf.training.loop import fit
from rnnclf.training.state import Training
from tests.training.small import INPUT, classifier, recipe, sequences, trained, without_seconds

# Going on after an interruption


RESUMED = {name: kind() for name, kind in OPTIMIZERS.items()} | {
    "sgd without momentum": SGD(momentum=0.0),
    "rmsprop with momentum": RMSprop(momentum=0.5),
}
DATA = {"classes": ["a", "b", "c"], "input_size": INPUT, "preparation": {}, "reading": {}, "fingerprint": ""}
HEADER = {"config": {}, **DATA, "epoch": 2}
on_every_device = pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))],
)


@pytest.mark.long
@pytest.mark.parametrize("optimizer", RESUMED)
@pytest.mark.parametrize("schedule", SCHEDULES.names())
@on_every_device
def test_saved_and_restored_training_goes_on_bit_for_bit(optimizer, schedule, device, tmp_path):
    plan = recipe(epochs=4, optimizer=RESUMED[optimizer], schedule=SCHEDULES[schedule](), clip=1.0)
    data = sequences(ragged=True).to(torch.device(device))
    path = tmp_path / "last.safetensors"

    def fresh(seed):
        return Training(classifier(seed=seed, layers=2, dropout=0.5).to(device), plan)

    whole = fresh(seed=0)
    results = trained(whole, data)

    interrupted = fresh(seed=0)
    torch.manual_seed(1)
    run = fit(interrupted, data, data)
    first = [next(run), next(run)]
    checkpoint.save(path, {**HEADER, "training": interrupted.state()}, interrupted.tensors())

    resumed = fresh(seed=5)
    list(fit(resumed, data, data))  # leaves a memory in the optimizer that restoring must replace
    saved = checkpoint.load(path)
    resumed.restore(saved.tensors, saved.header["training"])
    rest = list(fit(resumed, data, data))

    assert without_seconds(first + rest) == without_seconds(results)
    expected, tensors = whole.tensors(), resumed.tensors()
    assert tensors.keys() == expected.keys()
    for name in expected:
        assert torch.equal(tensors[name], expected[name]), name


def test_restored_tensors_are_copies():
    source, target = Training(classifier(), recipe()), Training(classifier(seed=5), recipe())
    trained(source)
    tensors = source.tensors()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    target.restore(tensors, Training(classifier(), recipe()).state())
    trained(target)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, before[name]), name


def test_going_back_to_the_start_empties_the_memory_of_the_optimizer():
    fresh, used = (Training(classifier(), recipe()) for _ in range(2))
    start, state = {name: tensor.clone() for name, tensor in fresh.tensors().items()}, fresh.state()
    trained(used)
    used.restore(start, state)
    assert without_seconds(trained(used)) == without_seconds(trained(fresh))


def test_restored_memory_lies_on_the_device_of_its_weight():
    source = Training(classifier(), recipe(optimizer=RMSprop()))
    trained(source)
    with torch.device("meta"):
        target = Training(classifier(), recipe(optimizer=RMSprop()))
    with pytest.warns(UserWarning, match="meta parameter"):  # meta weights take no values
        target.restore(source.tensors(), source.state())
    for weight in target.model.parameters():
        assert target.torch_optimizer.state[weight]["square_avg"].device == weight.device


def test_an_epoch_begun_by_a_version_without_gradient_norms_is_finished_with_those_that_are_known():
    source, states = Training(classifier(), recipe()), []

    def on_batch(progress):
        if not states and source.so_far.batches == 2:
            tensors = {name: tensor.clone() for name, tensor in source.tensors().items()}
            states.append((tensors, source.state()))

    expected = trained(source, on_batch=on_batch)
    ((tensors, state),) = states
    older = {"norms", "norm_sum", "largest_norm", "clipped"}
    state["so_far"] = {name: value for name, value in state["so_far"].items() if name not in older}
    target = Training(classifier(seed=5), recipe())
    target.restore(tensors, state)
    first, *rest = fit(target, sequences(), sequences())
    assert first.train == expected[0].train
    assert 0 < first.gradients.mean <= first.gradients.largest <= expected[0].gradients.largest
    assert without_seconds(rest) == without_seconds(expected[1:])
