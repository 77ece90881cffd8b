"""The engine that is recorded is the one that trained, and the reason for a slower one is true."""

import pytest

from rnnclf.augment import SeriesAugment
from rnnclf.cells import CELLS
from rnnclf.engine import choose
from rnnclf.engine.choose import ENGINES, Engine
from rnnclf.model import SequenceClassifier
from rnnclf.training.eligibility import SMALL, engine_used, is_eligible
from rnnclf.training.epoch import compiled_steps
from rnnclf.training.state import Training
from tests.training.small import classifier, recipe, sequences, trained

QUICK = ("basic", "s4d")
"""Most other cells have to be compiled."""


def used(model, plan=None, ragged=False):
    return engine_used(model, plan or recipe(), sequences(ragged=ragged))


@pytest.fixture
def ran(monkeypatch):
    """The names of the engines that are called, in a set that fills during the test."""
    names, original = set(), Engine.run.fget

    def run(engine):
        names.update(name for name, known in ENGINES.items() if known is engine)
        return original(engine)

    monkeypatch.setattr(Engine, "run", property(run))
    return names


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CELLS.names()]
)
def test_the_recorded_engine_is_the_one_that_trains(name, ran):
    training = Training(classifier(name, hidden=8), recipe(epochs=1, batch_size=30))
    data = sequences()
    recorded = engine_used(training.model, training.recipe, data)
    compiled = compiled_steps(training.model, training.recipe, data)
    assert recorded.whole_steps == (compiled is not None)
    if compiled is not None:
        compiled.close()
    trained(training, data)
    assert (set() if recorded.whole_steps else {recorded.name}) == ran


@pytest.mark.parametrize(
    ("stack", "name", "reason"),
    [
        ({"cell": "s4d"}, "fft", ""),
        ({"cell": "s4d", "norm": "batch"}, "fft", ""),
        ({"cell": "s4d", "readout": "mean"}, "fft", ""),
        ({"engine": "fused"}, "fused", "engine=fused was asked for, engine=auto takes machine"),
        ({"zoneout": 0.1}, "loop", "zoneout runs in the loop only"),
        ({"zoneout": 0.1, "cell": "lem"}, "loop", "zoneout runs in the loop only"),
        ({"precision": "bf16"}, "loop", "engine=machine does not run with precision=bf16"),
        ({"norm": "batch"}, "machine", "norm is not part of whole steps"),
        ({"readout": "attention"}, "machine", "readout=attention is not part of whole steps"),
    ],
)
def test_the_reason_for_a_slower_engine_is_recorded(stack, name, reason):
    pytest.importorskip("llvmlite")
    stack = dict(stack)
    found = used(classifier(stack.pop("cell", "basic"), **stack))
    assert (found.name, found.whole_steps, found.reason) == (name, False, reason)


@pytest.mark.parametrize("layers", [1, 2])
def test_small_steps_are_whole_though_only_the_last_output_is_read(layers):
    """Autograd and its calls of torch take longer there than all outputs in machine code."""
    pytest.importorskip("llvmlite")
    large = recipe(batch_size=SMALL)
    model = classifier("linoss", layers=layers)
    assert (used(model).words, used(model).reason) == ("machine, whole steps", "")
    assert used(model, large).words == ("fft" if layers == 1 else "fft and machine")
    assert used(classifier("linoss", layers=layers, engine="machine")).reason == ""
    assert used(classifier("linoss", layers=layers, norm="batch")).whole_steps is False
    assert used(classifier("linoss", engine="fft")).words == "fft"
    assert not is_eligible(model, sequences()), "scores need no gradients, so they read the last output"


def test_the_fastest_engine_needs_no_reason():
    pytest.importorskip("llvmlite")
    found = used(classifier())
    assert (found.name, found.whole_steps, found.reason, found.words) == (
        "machine",
        True,
        "",
        "machine, whole steps",
    )


def test_the_recipe_is_a_reason_too():
    pytest.importorskip("llvmlite")
    assert used(classifier(), recipe(focal=2.0)).reason == "focal is not part of whole steps"
    assert used(classifier(), recipe(augment=SeriesAugment())).words == "machine, whole steps"


def test_without_llvmlite_the_reason_says_what_to_install(monkeypatch):
    monkeypatch.setattr(choose, "find_spec", lambda package: None)
    assert used(classifier()).reason == "engine=machine needs llvmlite: pip install llvmlite"
    assert used(classifier()).name == "fused"
    assert used(classifier("lem")).name == "loop"


def test_a_cell_that_starts_from_its_inputs_has_no_whole_steps():
    pytest.importorskip("llvmlite")

    class FromInputs(CELLS["basic"]):
        def initial_state(self, x_BI):
            return super().initial_state(x_BI) + x_BI.mean(dim=-1, keepdim=True)

    model = SequenceClassifier(FromInputs(hidden_size=8), 2, 3)
    found = used(model)
    assert (found.name, found.whole_steps) == ("machine", False)
    assert found.reason == "cell=basic has no whole steps: its initial state depends on the inputs"
