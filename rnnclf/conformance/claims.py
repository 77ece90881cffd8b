"""The claims that every cell has to satisfy.  Shapes: T time, B batch, I inputs, H hidden.

The project's tests check each claim for each registered cell; `rnnclf test-cell` checks them for any cell,
such as one of your own.
"""

from __future__ import annotations

import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rnnclf import checkpoint
from rnnclf.cells.base import Cell
from rnnclf.cells.module import CellModule
from rnnclf.cells.parameters import Parameters
from rnnclf.cells.state import leaves, map_states
from rnnclf.conformance.cells import (
    BATCH,
    INPUT,
    drawn,
    expect_close,
    made,
    reached_state,
    sequences,
    single_steps,
    tensors_of,
    variants,
    with_options,
)
from rnnclf.conformance.stepping import answers_on_the_way, start_is_fixed, step_is_traceable
from rnnclf.conformance.verdict import BrokenError, CellType, Claim, UntestableError
from rnnclf.engine.choose import engines_able, engines_on, obstacle
from rnnclf.engine.unrolling import unroll
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack

LENGTHS = (1, 2, 7, 28, 784)
TOLERANCE = {torch.float32: 2e-3, torch.float64: 1e-8}
"""Relative tolerances. Gradients over hundreds of steps are sums of thousands of rounded numbers."""


def shapes_and_types(kind: CellType) -> None:
    """A step returns an output (B, hidden) and a state with the same shapes and types as before."""
    for options in variants(kind):
        for dtype in (torch.float32, torch.float64):
            module = drawn(made(kind, **options), dtype=dtype)
            x_BI = sequences(1, dtype=dtype)[0]
            before = module.initial_state(x_BI)
            output_BH, after = module(x_BI, before)
            expected = (BATCH, module.cell.hidden_size)
            if tuple(output_BH.shape) != expected or output_BH.dtype != dtype:
                raise BrokenError(
                    f"the output has shape {tuple(output_BH.shape)} and type {output_BH.dtype},"
                    f" not {expected} and {dtype}{with_options(options)}"
                )
            if not torch.isfinite(output_BH).all():
                raise BrokenError(f"the first output is not finite{with_options(options)}")
            if type(before) is not type(after):
                raise BrokenError(
                    f"the state is a {type(before).__name__} before and a {type(after).__name__} after"
                )
            for old, new in zip(leaves(before), leaves(after), strict=True):
                if old.shape != new.shape or old.dtype != new.dtype or len(old) != BATCH:
                    raise BrokenError(
                        f"a part of the state is {tuple(old.shape)} {old.dtype} before a step"
                        f" and {tuple(new.shape)} {new.dtype} after it{with_options(options)}"
                    )


def purity(kind: CellType) -> None:
    """A step does not modify its inputs, state and weights."""
    module = drawn(made(kind))
    state = map_states(lambda leaf: leaf.detach(), reached_state(module))
    parts = {"inputs": [sequences(1)[0]], "state": leaves(state), "weights": list(tensors_of(module))}
    before = copy.deepcopy({name: [part.detach() for part in tensors] for name, tensors in parts.items()})
    with torch.no_grad():
        module(parts["inputs"][0], state)
    for name, tensors in parts.items():
        for old, new in zip(before[name], tensors, strict=True):
            if not torch.equal(old, new):
                raise BrokenError(f"the step modifies its {name}")


def formula(kind: CellType) -> None:
    """The formula gives the number of trained parameters."""
    if not made(kind).formula:
        raise UntestableError("the cell has no formula")
    for options in variants(kind):
        for n, h in ((1, 1), (3, 5), (28, 10), (8, 8)):
            cell = made(kind, h, **options)
            counted = sum(weight.numel() for weight in cell.build(n).parameters())
            names = {**vars(cell), "n": n, "h": cell.hidden_size, "min": min, "max": max}
            claimed = eval(cell.formula, {"__builtins__": {}}, names)
            if claimed != counted:
                raise BrokenError(
                    f"{cell.formula} is {claimed} for n={n}, h={cell.hidden_size},"
                    f" but the cell has {counted} parameters{with_options(options)}"
                )


def options_count(kind: CellType) -> None:
    """Every option changes the cell."""

    def outcome(**options: Any) -> list[Tensor]:
        torch.manual_seed(0)
        module = made(kind, **options).build(INPUT)
        outputs, _ = single_steps(module, sequences(5, dtype=torch.float32), None)
        return [outputs, *tensors_of(module)]

    usual = outcome()
    for options in [*variants(kind, starts=True)[1:], {"hidden_size": 2 * made(kind).hidden_size}]:
        changed = outcome(**options)
        alike = len(usual) == len(changed) and all(map(torch.equal, usual, changed))
        if alike:
            raise BrokenError(f"nothing changes{with_options(options)}")


def seed_decides(kind: CellType) -> None:
    """The same seed gives the same weights, another seed other weights."""
    one, same, other = (_weights_of_seed(kind, seed) for seed in (0, 0, 1))
    if not all(map(torch.equal, one, same)):
        raise BrokenError("two cells with the same seed differ")
    if all(map(torch.equal, one, other)):
        raise BrokenError("two cells with different seeds are equal")


def _weights_of_seed(kind: CellType, seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    return list(tensors_of(made(kind).build(INPUT)))


def meta_device(kind: CellType) -> None:
    """On the meta device, a cell has its shapes, but allocates no memory and draws no random numbers."""
    before = torch.get_rng_state()
    with torch.device("meta"):
        shadow = made(kind, 200_000).build(INPUT)  # would have a matrix of 160 GB
        small = made(kind).build(INPUT)
    if not torch.equal(torch.get_rng_state(), before):
        raise BrokenError("it draws random numbers")
    if not all(weight.is_meta for weight in tensors_of(shadow)):
        raise BrokenError("it creates a weight on another device")
    if [w.shape for w in tensors_of(small)] != [w.shape for w in tensors_of(made(kind).build(INPUT))]:
        raise BrokenError("the shapes differ from those of the real cell")


def engines_agree(kind: CellType) -> None:
    """Every engine gives the outputs, states and gradients of single steps."""
    for options in variants(kind):
        cell = made(kind, **options)
        for dtype, tolerance in TOLERANCE.items():
            for steps in LENGTHS[:3] if options else LENGTHS:
                module = drawn(cell, dtype=dtype)
                if steps > 100 and engines_able(module) == ("loop",):
                    continue  # the loop itself runs single steps: 28 of them are enough
                expected = _outcome(module, steps, dtype, single_steps)
                for engine in engines_able(module):
                    found = _outcome(module, steps, dtype, partial(unroll, engine=engine))
                    where = f"with engine={engine}, {steps} steps, {dtype}{with_options(options)}"
                    for name, value in found.items():
                        expect_close(value, expected[name], f"{name} {where}", tolerance)


def faster_engine(kind: CellType) -> None:
    """An engine runs it faster than the loop does."""
    module = made(kind).build(INPUT)
    if engines_able(module) == ("loop",):
        reasons = [obstacle(name, module) for name in module.cell.engines if name != "loop"]
        raise UntestableError(": ".join(("it runs in the loop", *reasons)))


def _outcome(module: CellModule, steps: int, dtype: torch.dtype, run: Any) -> dict[str, Tensor]:
    """Outputs, final state, and the gradients of a random sum of both with respect to all inputs and
    weights."""
    x_TBI = sequences(steps, dtype=dtype).requires_grad_()
    state = reached_state(module)
    y_TBH, after = run(module, x_TBI, state)
    result = {"the output": y_TBH} | {f"state {i}": leaf for i, leaf in enumerate(leaves(after))}
    sources = {"inputs": x_TBI} | {f"state {i} before": leaf for i, leaf in enumerate(leaves(state))}
    sources |= dict(module.named_parameters())
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum().real
        for part in result.values()
    )
    gradients = torch.autograd.grad(total, list(sources.values()), allow_unused=True)
    for (name, source), gradient in zip(sources.items(), gradients, strict=True):
        result[f"the gradient of {name}"] = torch.zeros_like(source) if gradient is None else gradient
    return {name: value.detach() for name, value in result.items()}


def last_output_alone(kind: CellType) -> None:
    """The last output alone equals the last of all outputs, from the initial state and from another."""
    module, x_TBI = drawn(made(kind)), sequences(7)
    for engine in engines_able(module):
        for lengths_B in (None, torch.tensor([7, 1, 4])):
            for state in (None, reached_state(module)):
                every, _ = unroll(module, x_TBI, state, lengths_B, engine=engine)
                last, _ = unroll(module, x_TBI, state, lengths_B, engine=engine, every_step=False)
                expect_close(last, every[-1], f"the last output with engine={engine}")


def halves(kind: CellType) -> None:
    """Two halves of a sequence, with the state passed on, equal the whole."""
    module, x_TBI = drawn(made(kind)), sequences(9)
    for engine in engines_able(module):
        for cut in (1, 4, 8):
            whole, end = unroll(module, x_TBI, engine=engine)
            first, middle = unroll(module, x_TBI[:cut], engine=engine)
            second, last = unroll(module, x_TBI[cut:], middle, engine=engine)
            expect_close(torch.cat((first, second)), whole, f"the output with engine={engine}, cut at {cut}")
            for found, expected in zip(leaves(last), leaves(end), strict=True):
                expect_close(found, expected, f"the state with engine={engine}, cut at {cut}")


def rows_alone(kind: CellType) -> None:
    """A sequence gives the same outputs alone as in a batch."""
    module, x_TBI = drawn(made(kind)), sequences(5)
    together = unroll(module, x_TBI)[0]
    for row in range(BATCH):
        alone = unroll(module, x_TBI[:, row : row + 1])[0]
        expect_close(alone, together[:, row : row + 1], f"the output of sequence {row}")


def causality(kind: CellType) -> None:
    """An input affects its own and later outputs, but no earlier ones."""
    module, x_TBI = drawn(made(kind)), sequences(7)
    for engine in engines_able(module):
        changed_TBI = torch.cat((x_TBI[:4], x_TBI[4:] + 1))
        before, after = (unroll(module, x, engine=engine)[0] for x in (x_TBI, changed_TBI))
        expect_close(after[:4], before[:4], f"an output before the change, with engine={engine},")
        if (after[4:] - before[4:]).abs().amax(dim=(1, 2)).min() == 0:
            raise BrokenError("an output does not depend on its own input")


def ends_hold(kind: CellType) -> None:
    """After the end of a sequence, its output and state do not change."""
    module, x_TBI, lengths = drawn(made(kind)), sequences(7), (1, 4, 7)
    for engine in engines_able(module):
        y_TBH, end = unroll(module, x_TBI, None, torch.tensor(lengths), engine=engine)
        for b, length in enumerate(lengths):
            alone, alone_end = single_steps(module, x_TBI[:length, b : b + 1], None)
            held = torch.cat((alone, alone[-1:].expand(7 - length, 1, -1)))
            expect_close(y_TBH[:, b : b + 1], held, f"the output with engine={engine}, length {length}")
            for found, expected in zip(leaves(end), leaves(alone_end), strict=True):
                expect_close(found[b : b + 1], expected, f"the state with engine={engine}, length {length}")


def padding_is_invisible(kind: CellType) -> None:
    """Content and length of the padding do not affect logits and gradients."""
    lengths, y_B = (1, 4, 6), torch.tensor([0, 1, 2])
    x_BTI = sequences(6).transpose(0, 1)
    for engine in engines_able(drawn(made(kind))):
        for bidirectional in (False, True):
            torch.manual_seed(0)
            stack = Stack(layers=2, bidirectional=bidirectional, readout="mean", engine=engine)
            model = SequenceClassifier(made(kind), INPUT, 3, stack).double()

            def outcome(filler: float, extra: int, model: SequenceClassifier = model) -> dict[str, Tensor]:
                filled_BTI = functional.pad(x_BTI, (0, 0, 0, extra))
                for b, length in enumerate(lengths):
                    filled_BTI[b, length:] = filler
                logits_BK = model(filled_BTI, torch.tensor(lengths))
                loss = functional.cross_entropy(logits_BK, y_B)
                weights = dict(model.named_parameters())
                gradients = torch.autograd.grad(loss, list(weights.values()))
                return {"a logit": logits_BK, **dict(zip(weights, gradients, strict=True))}

            usual = outcome(0.0, 0)
            for filler, extra in ((1e3, 0), (float("nan"), 3)):
                where = f"with {filler:g} in the padding, engine={engine}, bidirectional={bidirectional}"
                for name, value in outcome(filler, extra).items():
                    expect_close(value, usual[name], f"{name} {where}")


def gradients_are_right(kind: CellType) -> None:
    """The gradients of a step equal finite differences."""
    for options in variants(kind):
        module = drawn(made(kind, 2, **options), inputs=2)
        cell, names = module.cell, [name for name, _ in module.named_parameters()]
        fixed = dict(module.named_buffers())
        state = reached_state(module, batch=2)
        parts = len(leaves(state))

        def step(
            x_BI: Tensor,
            *tensors: Tensor,
            cell: Cell = cell,
            names: list[str] = names,
            parts: int = parts,
            state: Any = state,
            fixed: dict[str, Tensor] = fixed,
        ) -> tuple[Tensor, ...]:
            p = cell.prepare(Parameters(**dict(zip(names, tensors[parts:], strict=True)), **fixed))
            given = iter(tensors[:parts])
            output, after = cell.step(p, cell.inputs(p, x_BI), map_states(lambda _: next(given), state))
            return output, *leaves(after)

        x_BI = sequences(1, 2, 2)[0].requires_grad_()
        sources = (x_BI, *leaves(state), *module.parameters())
        try:
            torch.autograd.gradcheck(step, sources, fast_mode=bool(options))
        except torch.autograd.gradcheck.GradcheckError as error:  # type: ignore[attr-defined]
            raise BrokenError(f"{str(error).splitlines()[0]}{with_options(options)}") from error


def gradients_reach_step_one(kind: CellType) -> None:
    """The gradient of the last of 30 outputs reaches the first input."""
    torch.manual_seed(0)
    module = made(kind, 20).build(INPUT).double()
    x_TBI = sequences(30).requires_grad_()
    total = unroll(module, x_TBI)[0][-1].sum()
    norms_T = torch.autograd.grad(total, x_TBI)[0].flatten(1).norm(dim=1)
    if not norms_T[0] > 1e-12 * norms_T[-1] > 0:
        raise BrokenError(f"its norm is {norms_T[0]:.2g} at the first step, {norms_T[-1]:.2g} at the last")


def parameters_learn(kind: CellType) -> None:
    """Every trained parameter gets a gradient."""
    module = drawn(made(kind))
    weights = dict(module.named_parameters())
    if not weights:
        return
    total = unroll(module, sequences(7))[0].pow(2).sum()
    gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    for name, gradient in zip(weights, gradients, strict=True):
        if gradient is None or not gradient.any():
            raise BrokenError(f"{name} gets no gradient")


def one_batch_is_learned(kind: CellType) -> None:
    """The cell can learn all labels of a batch of random sequences."""
    torch.manual_seed(0)
    model = SequenceClassifier(made(kind, 32), INPUT, 3)
    x_BTI = sequences(5, 12, dtype=torch.float32).transpose(0, 1)
    y_B = torch.arange(12) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(400):
        logits_BK = model(x_BTI)
        correct = int((logits_BK.argmax(dim=-1) == y_B).sum())
        if correct == len(y_B):
            return
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(logits_BK, y_B))
        optimizer.step()
    raise BrokenError(f"after 400 training steps, {correct} of {len(y_B)} predictions are correct")


def saved_and_loaded(kind: CellType) -> None:
    """A saved and loaded model gives the same logits."""
    torch.manual_seed(0)
    model = SequenceClassifier(made(kind), INPUT, 3).eval()
    x_BTI = sequences(5, dtype=torch.float32).transpose(0, 1)
    header = {"config": {}, "classes": ["a", "b", "c"], "input_size": INPUT, "epoch": 1}
    header |= {"preparation": {}, "reading": {}, "fingerprint": ""}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cell.safetensors"
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        checkpoint.save(path, header, tensors)
        with torch.device("meta"):
            shadow = SequenceClassifier(made(kind), INPUT, 3).eval()
        checkpoint.fill(shadow, checkpoint.load(path))
    if not torch.equal(shadow(x_BTI), model(x_BTI)):
        raise BrokenError("the logits differ")


def devices_agree(kind: CellType) -> None:
    """CPU and GPU give the same outputs."""
    if not torch.cuda.is_available():
        raise UntestableError("there is no GPU here")
    cell = made(kind)
    for engine in engines_on("cuda", cell):
        module, x_TBI = drawn(cell), sequences(7)
        expected = unroll(module, x_TBI, engine=engine)[0]
        found = unroll(module.cuda(), x_TBI.cuda(), engine=engine)[0].cpu()
        expect_close(found, expected, f"the output with engine={engine}")


CLAIMS: tuple[Claim, ...] = (
    shapes_and_types,
    purity,
    formula,
    options_count,
    seed_decides,
    meta_device,
    engines_agree,
    faster_engine,
    last_output_alone,
    halves,
    rows_alone,
    causality,
    ends_hold,
    padding_is_invisible,
    gradients_are_right,
    gradients_reach_step_one,
    parameters_learn,
    one_batch_is_learned,
    saved_and_loaded,
    start_is_fixed,
    step_is_traceable,
    answers_on_the_way,
    devices_agree,
)
