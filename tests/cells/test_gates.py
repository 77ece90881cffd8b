"""Cells with gates and a linear state stay finite whatever their inputs are."""

import pytest
import torch

from rnnclf.cells.minimal import MinGRU, MinLSTM
from rnnclf.cells.qrnn import QRNN
from rnnclf.cells.rglru import RGLRU
from rnnclf.cells.sru import SRU
from rnnclf.cells.state import leaves
from rnnclf.conformance.cells import made, sequences, variants
from rnnclf.engine.unrolling import unroll
from tests.cells.gated_cells import BATCH, HIDDEN, INPUT, write
from tests.equations import gates

KINDS = (MinGRU, MinLSTM, SRU, QRNN, RGLRU)


# All of them


def extremes(time):
    """Sequences (T, B, I) of ±1000: constant, alternating, one jump, one pulse, at random."""
    t = torch.arange(time)
    rows = [
        torch.ones(time),
        -torch.ones(time),
        1 - 2.0 * (t % 2),
        torch.where(t < time // 2, 1.0, -1.0),
        torch.where(t == time // 2, 1.0, 0.0),
    ]
    random = torch.randn(time, BATCH, INPUT, generator=torch.Generator().manual_seed(0)).sign()
    return 1e3 * torch.cat([torch.stack(rows, dim=1)[..., None].expand(-1, -1, INPUT), random], dim=1)


def extreme_cases():
    """Each cell with its defaults by each engine, and each option changed alone by the fastest."""
    cases = []
    for kind in KINDS:
        for options in variants(kind):
            able = made(kind, INPUT, **options).engines
            for engine in able if not options else able[:1]:
                changed = [f"{key}={value}" for key, value in options.items()]
                name = "-".join([kind.name, *changed, engine])
                marks = pytest.mark.slow if options else ()
                cases.append(pytest.param(kind, options, engine, id=name, marks=marks))
    return cases


@pytest.mark.long
@pytest.mark.parametrize(("kind", "options", "engine"), extreme_cases())
def test_3000_steps_of_extreme_inputs_stay_finite_in_outputs_and_gradients(kind, options, engine):
    torch.manual_seed(0)
    module = made(kind, INPUT, **options).build(INPUT)
    x_TBI = extremes(3000).requires_grad_()
    y_TBH, state = unroll(module, x_TBI, engine=engine)
    probe = torch.randn(y_TBH.shape, generator=torch.Generator().manual_seed(1))
    total = (y_TBH * probe).sum() + sum(leaf.sum() for leaf in leaves(state))
    names, sources = zip(("x", x_TBI), *module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, sources)
    assert y_TBH.isfinite().all()
    assert all(leaf.isfinite().all() for leaf in leaves(state))
    for name, gradient in zip(names, gradients, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


@pytest.mark.parametrize("decay", [-1000.0, -20.0, 20.0, 1000.0])
def test_rglru_decays_at_both_ends_have_finite_gradients(decay):
    torch.manual_seed(0)
    module = RGLRU(hidden_size=HIDDEN).build(INPUT)
    write(module, decay=decay)
    x_TBI = sequences(50, dtype=torch.float32).requires_grad_()
    y_TBH, _ = unroll(module, x_TBI)
    assert y_TBH.isfinite().all()
    for gradient in torch.autograd.grad(y_TBH.sum(), [x_TBI, *module.parameters()]):
        assert gradient.isfinite().all()


def test_every_cell_with_equations_in_that_file_is_tested_here():
    assert set(gates.EQUATIONS) == {kind.name for kind in KINDS}
