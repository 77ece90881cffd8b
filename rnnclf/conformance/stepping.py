"""The claims by which a trained cell can be exported and can answer step by step, its user's own, too.

Shapes: T time, B batch, I inputs.
"""

from __future__ import annotations

import torch

from rnnclf.cells.state import leaves
from rnnclf.conformance.cells import BATCH, INPUT, drawn, expect_close, made, reached_state, sequences
from rnnclf.conformance.verdict import BrokenError, CellType
from rnnclf.errors import ConfigError
from rnnclf.export.step import CellInputs, CellStep, ClassifierStep, as_real
from rnnclf.export.tracing import Function, recorded
from rnnclf.model import SequenceClassifier
from rnnclf.readout import READOUTS
from rnnclf.stack import Stack


def start_is_fixed(kind: CellType) -> None:
    """The initial state does not depend on the inputs, and is the same for each sequence of a batch."""
    cell = made(kind)
    one, other = (leaves(cell.initial_state(sequences(steps)[0])) for steps in (1, 2))
    for before, after in zip(one, other, strict=True):
        if not torch.equal(before, after):
            raise BrokenError("it changes with the inputs")
        if not torch.equal(before, before[:1].expand_as(before)):
            raise BrokenError("it is not the same for each sequence")


def step_is_traceable(kind: CellType) -> None:
    """A step that torch has recorded gives the same for another batch, so the cell can be exported."""
    module = drawn(made(kind))
    inputs, step = CellInputs(module), CellStep(module)
    x_TBI, state = sequences(2, 2), as_real(module.initial_state(sequences(1, 2)[0]))
    with torch.no_grad():
        functions = [Function(inputs, (x_TBI,), (0, 1)), Function(step, (inputs(x_TBI[0]), *state))]
        try:
            record = recorded(functions)
        except ConfigError as error:
            raise BrokenError(str(error)) from error
        x_TBI, before = sequences(2), as_real(reached_state(module, BATCH))
        z = inputs(x_TBI[0])
        expected = (inputs(x_TBI), *step(z, *before))
        try:
            found = record(x_TBI, z, *before)
        except Exception as error:  # torch raises an AssertionError for a size that it took for fixed
            raise BrokenError("what torch has recorded serves batches of one size alone") from error
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        what = "what `inputs` makes" if number == 0 else "the output" if number == 1 else "the state"
        expect_close(one, other, f"{what}, recorded for 2 sequences and used for {BATCH},")


def answers_on_the_way(kind: CellType) -> None:
    """A classifier that sees a step at a time answers as for the steps so far, with every readout."""
    x_BTI = sequences(5).transpose(0, 1)
    for readout in READOUTS.names():
        torch.manual_seed(0)
        stack = Stack(layers=2, readout=readout, norm="layer", residual=True, readout_layers="all")
        model = SequenceClassifier(made(kind), INPUT, 3, stack).double().eval()
        with torch.no_grad():
            step = ClassifierStep(model)
            state = x_BTI.new_zeros(len(x_BTI), step.width)
            for t in range(x_BTI.shape[1]):
                logits, state = step(x_BTI[:, t], x_BTI.new_ones(len(x_BTI)), state)
                expect_close(
                    logits, model(x_BTI[:, : t + 1]), f"a logit after step {t + 1}, readout={readout},"
                )
