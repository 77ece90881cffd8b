"""What every cell keeps, as claims that can be tested.  Shapes: T time, B batch, I inputs, H hidden.

The tests of the project put each claim to each registered cell; `rnnclf test-cell` puts them to a cell of
the user's. A claim is a function of a cell's class whose docstring says it in words; it raises `BrokenError`
where it does not hold, and `UntestableError` where it cannot be put here.
"""

from __future__ import annotations

import copy
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
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
from rnnclf.engine.unrolling import unroll
from rnnclf.errors import ConfigError
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack

BATCH, INPUT, HIDDEN = 3, 4, 6
LENGTHS = (1, 2, 7, 28, 784)
TOLERANCE = {torch.float32: 2e-3, torch.float64: 1e-8}
"""Of float32 over hundreds of steps: gradients add up thousands of rounded numbers."""

CellType = type[Cell]
Claim = Callable[[CellType], None]


class BrokenError(Exception):
    """A claim does not hold; the message says where."""


class UntestableError(Exception):
    """A claim cannot be put to this cell here; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """What came of one claim: kept, broken or not tested, with the reason."""

    claim: str
    outcome: str
    reason: str = ""


def words(claim: Claim) -> str:
    """A claim as a sentence."""
    return (claim.__doc__ or "").partition("\n")[0].rstrip(".")


def verdict(claim: Claim, kind: CellType) -> Verdict:
    """Puts one claim to a cell. An error in the cell's own code breaks the claim, too."""
    try:
        claim(kind)
    except BrokenError as error:
        return Verdict(words(claim), "broken", str(error))
    except UntestableError as error:
        return Verdict(words(claim), "not tested", str(error))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        first_line = (str(error).splitlines() or [""])[0]
        return Verdict(
            words(claim),
            "broken",
            f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}: {first_line}",
        )
    return Verdict(words(claim), "kept")


# Cells to put claims to


def made(kind: CellType, at_least: int = HIDDEN, **options: Any) -> Cell:
    """A cell of about `at_least` units: the next number that it accepts."""
    for hidden in range(at_least, at_least + 64):
        cell = kind(**{"hidden_size": hidden, **options})
        if cell.hidden_size % cell.multiple == 0:
            return cell
    raise BrokenError(f"no hidden_size from {at_least} to {at_least + 63} is accepted")


def drawn(
    cell: Cell, *, seed: int = 0, inputs: int = INPUT, dtype: torch.dtype = torch.float64
) -> CellModule:
    """The cell with weights a little away from where they start: biases are not zero either."""
    torch.manual_seed(seed)
    module = cell.build(inputs).to(dtype)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    return module


def sequences(
    steps: int, batch: int = BATCH, inputs: int = INPUT, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Random sequences (T, B, I), the same ones every time."""
    generator = torch.Generator().manual_seed(steps)
    return torch.randn(steps, batch, inputs, generator=generator, dtype=torch.float64).to(dtype)


def reached_state(module: CellModule, batch: int = BATCH) -> Any:
    """A state that the cell comes to by itself: that after three steps, cut off from them."""
    x_TBI = sequences(3, batch, module.input_size, next(_tensors(module)).dtype)
    state = single_steps(module, x_TBI, None)[1]
    return map_states(lambda leaf: leaf.detach().requires_grad_(), state)


def single_steps(module: CellModule, x_TBI: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Outputs and state of one step after the other, as the cell defines it: no engine has a part in it."""
    cell, p = module.cell, module.prepared()
    state = cell.initial_state(x_TBI[0]) if state is None else state
    outputs = []
    for x_BI in x_TBI:
        output_BH, state = cell.step(p, cell.inputs(p, x_BI), state)
        outputs.append(output_BH)
    return torch.stack(outputs), state


def option_values(kind: CellType) -> dict[str, list[Any]]:
    """Other values than the default for each option of a cell."""
    return {
        option_field.name: list(_others(kind, option_field))
        for option_field in fields(kind)
        if option_field.name not in ("name", "hidden_size")
    }


def variants(kind: CellType, *, starts: bool = False) -> list[dict[str, Any]]:
    """The options of the cells to test: the defaults, then each option changed alone.

    Options called …init choose where weights start and nothing else: they are left out without `starts`.
    """
    changed = [{name: value} for name, values in option_values(kind).items() for value in values]
    return [{}, *(options for options in changed if starts or not next(iter(options)).endswith("init"))]


def _others(kind: CellType, option_field: Any) -> Iterator[Any]:
    default, metadata = option_field.default, option_field.metadata
    if metadata.get("choices"):
        yield from (choice for choice in metadata["choices"] if choice != default)
        return
    if isinstance(default, bool):
        yield not default
        return
    limits = {key: limit for key, limit in metadata.get("limits", {}).items() if limit is not None}
    least = limits.get("low", limits.get("above", 0))
    if default is None or (isinstance(default, int) and "int" in str(option_field.type)):
        candidates = [(least if default is None else default) + d for d in (2, 1, 4, -1, -2)]
    else:
        candidates = [default * 0.5, default * 0.9, default + 0.5, (least + default) / 2, default * 0.99]
    for value in candidates:
        if value != default and _accepted(kind, **{option_field.name: value}):
            yield value
            return
    raise BrokenError(f"no other value of the option {option_field.name} is accepted than {default}")


def _accepted(kind: CellType, **options: Any) -> bool:
    try:
        made(kind, **options)
    except (ConfigError, BrokenError):
        return False
    return True


def _tensors(module: CellModule) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _expect_close(found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-8) -> None:
    if found.shape != expected.shape:
        raise BrokenError(f"{what} has shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    scale = 1 + expected.abs().max().item() if expected.numel() else 1.0
    difference = (found - expected).abs().max().item() if expected.numel() else 0.0
    if not difference <= tolerance * scale:  # NaN is not less than anything
        raise BrokenError(f"{what} differs by {difference:.2g}")


def _named(options: dict[str, Any]) -> str:
    return "".join(f" with {name}={value}" for name, value in options.items())


# The claims


def shapes_and_types(kind: CellType) -> None:
    """A step gives an output (B, hidden) and a state like the one before it."""
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
                    f" not {expected} and {dtype}{_named(options)}"
                )
            if not torch.isfinite(output_BH).all():
                raise BrokenError(f"the first output is not finite{_named(options)}")
            if type(before) is not type(after):
                raise BrokenError(
                    f"the state is a {type(before).__name__} before and a {type(after).__name__} after"
                )
            for old, new in zip(leaves(before), leaves(after), strict=True):
                if old.shape != new.shape or old.dtype != new.dtype or len(old) != BATCH:
                    raise BrokenError(
                        f"a part of the state is {tuple(old.shape)} {old.dtype} before a step"
                        f" and {tuple(new.shape)} {new.dtype} after it{_named(options)}"
                    )


def purity(kind: CellType) -> None:
    """A step leaves inputs, state and weights as they were."""
    module = drawn(made(kind))
    state = map_states(lambda leaf: leaf.detach(), reached_state(module))
    parts = {"inputs": [sequences(1)[0]], "state": leaves(state), "weights": list(_tensors(module))}
    before = copy.deepcopy({name: [part.detach() for part in tensors] for name, tensors in parts.items()})
    with torch.no_grad():
        module(parts["inputs"][0], state)
    for name, tensors in parts.items():
        for old, new in zip(before[name], tensors, strict=True):
            if not torch.equal(old, new):
                raise BrokenError(f"the step writes into its {name}")


def formula(kind: CellType) -> None:
    """The formula counts the trained parameters."""
    if not made(kind).formula:
        raise UntestableError("the cell gives no formula")
    for options in variants(kind):
        for n, h in ((1, 1), (3, 5), (28, 10), (8, 8)):
            cell = made(kind, h, **options)
            counted = sum(weight.numel() for weight in cell.build(n).parameters())
            names = {**vars(cell), "n": n, "h": cell.hidden_size, "min": min, "max": max}
            claimed = eval(cell.formula, {"__builtins__": {}}, names)
            if claimed != counted:
                raise BrokenError(
                    f"{cell.formula} is {claimed} for n={n}, h={cell.hidden_size},"
                    f" the cell has {counted} parameters{_named(options)}"
                )


def options_count(kind: CellType) -> None:
    """Every option changes the cell."""

    def outcome(**options: Any) -> list[Tensor]:
        torch.manual_seed(0)
        module = made(kind, **options).build(INPUT)
        outputs, _ = single_steps(module, sequences(5, dtype=torch.float32), None)
        return [outputs, *_tensors(module)]

    usual = outcome()
    for options in [*variants(kind, starts=True)[1:], {"hidden_size": 2 * made(kind).hidden_size}]:
        changed = outcome(**options)
        alike = len(usual) == len(changed) and all(map(torch.equal, usual, changed))
        if alike:
            raise BrokenError(f"nothing changes{_named(options)}")


def seed_decides(kind: CellType) -> None:
    """The same seed draws the same weights, another seed others."""
    one, same, other = (_weights_of_seed(kind, seed) for seed in (0, 0, 1))
    if not all(map(torch.equal, one, same)):
        raise BrokenError("two cells drawn with one seed differ")
    if all(map(torch.equal, one, other)):
        raise BrokenError("two cells drawn with different seeds are equal")


def _weights_of_seed(kind: CellType, seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    return list(_tensors(made(kind).build(INPUT)))


def meta_device(kind: CellType) -> None:
    """On the meta device it has its shapes, takes no memory and draws nothing."""
    before = torch.get_rng_state()
    with torch.device("meta"):
        shadow = made(kind, 200_000).build(INPUT)  # a matrix of 160 GB, were it real
        small = made(kind).build(INPUT)
    if not torch.equal(torch.get_rng_state(), before):
        raise BrokenError("random numbers are drawn")
    if not all(weight.is_meta for weight in _tensors(shadow)):
        raise BrokenError("a weight is made on another device")
    if [w.shape for w in _tensors(small)] != [w.shape for w in _tensors(made(kind).build(INPUT))]:
        raise BrokenError("the shapes differ from those of the real cell")


def engines_agree(kind: CellType) -> None:
    """Every engine gives what single steps give, in outputs, states and gradients."""
    for options in variants(kind):
        cell = made(kind, **options)
        for dtype, tolerance in TOLERANCE.items():
            for steps in LENGTHS[:3] if options else LENGTHS:
                if steps > 100 and cell.engines == ("loop",):
                    continue  # the loop takes single steps itself: what it does at 28 it does at 784
                module = drawn(cell, dtype=dtype)
                expected = _outcome(module, steps, dtype, single_steps)
                for engine in cell.engines:
                    found = _outcome(module, steps, dtype, partial(unroll, engine=engine))
                    where = f"with engine={engine}, {steps} steps, {dtype}{_named(options)}"
                    for name, value in found.items():
                        _expect_close(value, expected[name], f"{name} {where}", tolerance)


def _outcome(module: CellModule, steps: int, dtype: torch.dtype, run: Any) -> dict[str, Tensor]:
    """Outputs, state after them, and the gradients of a random sum of both by all that goes in."""
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
    """The last output alone is the last of all outputs, from a fresh state and from another."""
    cell = made(kind)
    module, x_TBI = drawn(cell), sequences(7)
    for engine in cell.engines:
        for lengths_B in (None, torch.tensor([7, 1, 4])):
            for state in (None, reached_state(module)):
                every, _ = unroll(module, x_TBI, state, lengths_B, engine=engine)
                last, _ = unroll(module, x_TBI, state, lengths_B, engine=engine, every_step=False)
                _expect_close(last, every[-1], f"the last output with engine={engine}")


def halves(kind: CellType) -> None:
    """Two halves with the state handed over equal the whole."""
    cell = made(kind)
    module, x_TBI = drawn(cell), sequences(9)
    for engine in cell.engines:
        for cut in (1, 4, 8):
            whole, end = unroll(module, x_TBI, engine=engine)
            first, middle = unroll(module, x_TBI[:cut], engine=engine)
            second, last = unroll(module, x_TBI[cut:], middle, engine=engine)
            _expect_close(torch.cat((first, second)), whole, f"the output with engine={engine}, cut at {cut}")
            for found, expected in zip(leaves(last), leaves(end), strict=True):
                _expect_close(found, expected, f"the state with engine={engine}, cut at {cut}")


def rows_alone(kind: CellType) -> None:
    """A sequence gives the same alone as in a batch."""
    module, x_TBI = drawn(made(kind)), sequences(5)
    together = unroll(module, x_TBI)[0]
    for row in range(BATCH):
        alone = unroll(module, x_TBI[:, row : row + 1])[0]
        _expect_close(alone, together[:, row : row + 1], f"the output of sequence {row}")


def causality(kind: CellType) -> None:
    """Later inputs leave earlier outputs alone, and change later ones."""
    cell = made(kind)
    for engine in cell.engines:
        module, x_TBI = drawn(cell), sequences(7)
        changed_TBI = torch.cat((x_TBI[:4], x_TBI[4:] + 1))
        before, after = (unroll(module, x, engine=engine)[0] for x in (x_TBI, changed_TBI))
        _expect_close(after[:4], before[:4], f"an output before the change, with engine={engine},")
        if (after[4:] - before[4:]).abs().amax(dim=(1, 2)).min() == 0:
            raise BrokenError("an output does not depend on its own input")


def ends_hold(kind: CellType) -> None:
    """After the end of a sequence its output and state stay what they were."""
    cell = made(kind)
    module, x_TBI, lengths = drawn(cell), sequences(7), (1, 4, 7)
    for engine in cell.engines:
        y_TBH, end = unroll(module, x_TBI, None, torch.tensor(lengths), engine=engine)
        for b, length in enumerate(lengths):
            alone, alone_end = single_steps(module, x_TBI[:length, b : b + 1], None)
            held = torch.cat((alone, alone[-1:].expand(7 - length, 1, -1)))
            _expect_close(y_TBH[:, b : b + 1], held, f"the output with engine={engine}, length {length}")
            for found, expected in zip(leaves(end), leaves(alone_end), strict=True):
                _expect_close(found[b : b + 1], expected, f"the state with engine={engine}, length {length}")


def padding_is_invisible(kind: CellType) -> None:
    """Whatever is written in the padding and however long it is, logits, loss and gradients stay."""
    lengths, y_B = (1, 4, 6), torch.tensor([0, 1, 2])
    x_BTI = sequences(6).transpose(0, 1)
    for engine in made(kind).engines:
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
                    _expect_close(value, usual[name], f"{name} {where}")


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
            raise BrokenError(f"{str(error).splitlines()[0]}{_named(options)}") from error


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
            raise BrokenError(f"{name} gets none")


def one_batch_is_learned(kind: CellType) -> None:
    """One batch of random sequences is learned to the last one."""
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
    raise BrokenError(f"after 400 steps {correct} of {len(y_B)} are right")


def saved_and_loaded(kind: CellType) -> None:
    """Saved and loaded it gives the same logits."""
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
    """CPU and GPU give the same."""
    if not torch.cuda.is_available():
        raise UntestableError("no GPU here")
    cell = made(kind)
    for engine in cell.engines:
        module, x_TBI = drawn(cell), sequences(7)
        expected = unroll(module, x_TBI, engine=engine)[0]
        found = unroll(module.cuda(), x_TBI.cuda(), engine=engine)[0].cpu()
        _expect_close(found, expected, f"the output with engine={engine}")


CLAIMS: tuple[Claim, ...] = (
    shapes_and_types,
    purity,
    formula,
    options_count,
    seed_decides,
    meta_device,
    engines_agree,
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
    devices_agree,
)
