"""A claim that nothing can break is worth nothing: for each there is a cell here that breaks it."""

from dataclasses import dataclass

import pytest
import torch

from rnnclf.cells import CELLS, Cell, GatedCell, ParameterSpec
from rnnclf.cells.linear import LinearCell
from rnnclf.conformance.claims import CLAIMS
from rnnclf.conformance.verdict import verdict, words
from rnnclf.options import option


@dataclass
class Leaky(GatedCell):
    """A cell that keeps all claims."""

    name: str = "leaky"
    gates = ("h",)
    rate: float = option(0.5, "how much is new", above=0, high=1)

    def step(self, p, z, h):
        h = (1 - self.rate) * h + self.rate * (z + h @ p.recurrent_weight.t()).tanh()
        return h, h


@dataclass
class Fading(LinearCell):
    """A linear cell that keeps all claims."""

    name: str = "fading"

    @property
    def formula(self):
        return "2*h*n"

    def parameters(self, input_size):
        shape = (2 * self.hidden_size, input_size)
        return {"weight": ParameterSpec(shape, lambda w: w.normal_(std=0.5))}

    def inputs(self, p, x):
        return x @ p.weight.t()

    def recurrence(self, p, s):
        gate, new = s.chunk(2, dim=-1)
        return gate.sigmoid(), new * (-gate).sigmoid()

    def read(self, p, s, h):
        return h.tanh()


class TooWide(Leaky):
    def step(self, p, z, h):
        h, _ = super().step(p, z, h)
        return torch.cat((h, h), dim=-1), h


class WritesIntoItsState(Leaky):
    def step(self, p, z, h):
        h.mul_(0.5)
        return super().step(p, z, h)


class Miscounted(Leaky):
    formula = "h*(n + h)"


@dataclass
class DeadOption(Leaky):
    momentum: float = option(0.5, "nothing", low=0, high=1)


class SameForEverySeed(Leaky):
    def parameters(self, input_size):
        specs = super().parameters(input_size)
        return {name: ParameterSpec(spec.shape, lambda w: w.fill_(0.1)) for name, spec in specs.items()}


class DrawsTooEarly(Leaky):
    def parameters(self, input_size):
        drawn = torch.randn(self.hidden_size, device="cpu")
        return {
            **super().parameters(input_size),
            "bias": ParameterSpec((len(drawn),), lambda b: b.copy_(drawn)),
        }


class StepsDifferently(Fading):
    def step(self, p, z, state):
        output, state = super().step(p, 1.01 * z, state)
        return output, state


class ReadsAllSteps(Fading):
    def read(self, p, s, h):
        return h.tanh() if h.ndim == 2 else h.tanh() + 0.1 * h.mean(dim=0)


class RemembersElsewhere(Leaky):
    def inputs(self, p, x):
        self.__dict__["fresh"] = True
        return super().inputs(p, x)

    def step(self, p, z, h):
        z = z + 0.1 if self.__dict__.pop("fresh", False) else z
        return super().step(p, z, h)


class MixesTheBatch(Leaky):
    def step(self, p, z, h):
        return super().step(p, z - z.mean(dim=0), h)


class LooksAhead(Leaky):
    def inputs(self, p, x):
        z = super().inputs(p, x)
        return z - z.mean(dim=0) if x.ndim == 3 else z


class CutsGradients(Leaky):
    def step(self, p, z, h):
        return super().step(p, z, h.detach())


@dataclass
class IdleWeight(Leaky):
    formula = "h*(n + h + 2)"

    def parameters(self, input_size):
        spare = ParameterSpec((self.hidden_size,), lambda w: w.normal_())
        return {**super().parameters(input_size), "spare": spare}


class SaysNothing(Leaky):
    def step(self, p, z, h):
        h, _ = super().step(p, z, h)
        return 0 * h, h


class StartsFromItsInput(Leaky):
    def initial_state(self, x_BI):
        return super().initial_state(x_BI) + x_BI.sum()


class LooksAtAValue(Leaky):
    def step(self, p, z, h):
        return super().step(p, z if z.sum() > 0 else 0.5 * z, h)


class CountsItsSteps(Leaky):
    def step(self, p, z, h):
        self.__dict__["count"] = self.__dict__.get("count", 0) + 1
        return super().step(p, z + 0.01 * self.__dict__["count"], h)


class Noisy(Leaky):
    def step(self, p, z, h):
        h, _ = super().step(p, z + 0.1 * torch.randn_like(z), h)
        return h, h


BROKEN = {
    "shapes_and_types": TooWide,
    "purity": WritesIntoItsState,
    "formula": Miscounted,
    "options_count": DeadOption,
    "seed_decides": SameForEverySeed,
    "meta_device": DrawsTooEarly,
    "engines_agree": StepsDifferently,
    "last_output_alone": ReadsAllSteps,
    "halves": RemembersElsewhere,
    "rows_alone": MixesTheBatch,
    "causality": LooksAhead,
    "ends_hold": LooksAhead,
    "padding_is_invisible": LooksAhead,
    "gradients_are_right": CutsGradients,
    "gradients_reach_step_one": CutsGradients,
    "parameters_learn": IdleWeight,
    "one_batch_is_learned": SaysNothing,
    "saved_and_loaded": Noisy,
    "start_is_fixed": StartsFromItsInput,
    "step_is_traceable": LooksAtAValue,
    "answers_on_the_way": CountsItsSteps,
}
BY_NAME = {claim.__name__: claim for claim in CLAIMS}


def each(names):
    """Names of claims. torch takes seconds to load what records a step."""
    long = "step_is_traceable"
    return [pytest.param(name, marks=pytest.mark.long if name == long else ()) for name in names]


@pytest.mark.long
@pytest.mark.parametrize("name", each(BY_NAME))
@pytest.mark.parametrize("kind", [Leaky, pytest.param(Fading, marks=pytest.mark.slow)])
def test_a_right_cell_keeps_every_claim(kind, name):
    result = verdict(BY_NAME[name], kind)
    assert result.outcome == ("not tested" if "GPU" in result.reason else "kept"), result.reason


@pytest.mark.parametrize("name", each(BROKEN))
def test_a_wrong_cell_breaks_the_claim(name):
    result = verdict(BY_NAME[name], BROKEN[name])
    assert result.outcome == "broken"
    assert result.claim == words(BY_NAME[name])
    assert result.reason


def test_a_cell_that_is_left_to_the_loop_is_told_why():
    result = verdict(BY_NAME["faster_engine"], LooksAtAValue)
    assert result.outcome == "not tested"
    assert result.reason.startswith("it runs in the loop: its step reads single numbers")


def test_every_claim_but_that_about_a_gpu_and_that_about_speed_can_be_broken():
    assert set(BY_NAME) - set(BROKEN) == {"devices_agree", "faster_engine"}


def test_an_error_in_the_cell_is_told_with_its_place():
    class Raises(Leaky):
        def step(self, p, z, h):
            raise TypeError("no such thing")

    result = verdict(BY_NAME["halves"], Raises)
    assert result.outcome == "broken"
    assert result.reason.startswith("TypeError in test_conformance.py, line ")
    assert result.reason.endswith(": no such thing")


@pytest.mark.long
def test_a_cell_that_cannot_be_exported_is_told_its_line():
    reason = verdict(BY_NAME["step_is_traceable"], LooksAtAValue).reason
    assert reason.startswith("cell=leaky cannot be exported: test_conformance.py, line ")
    assert reason.endswith(": return super().step(p, z if z.sum() > 0 else 0.5 * z, h)")


def test_a_cell_without_a_formula_is_not_tested_for_it():
    class Uncounted(Leaky):
        formula = ""

    assert verdict(BY_NAME["formula"], Uncounted).outcome == "not tested"


# The command

WRONG = """
from dataclasses import dataclass
from rnnclf.cells import GatedCell

@dataclass
class Right(GatedCell):
    name: str = "right"
    gates = ("h",)

    def step(self, p, z, h):
        h = (z + h @ p.recurrent_weight.t()).tanh()
        return h, h

class Wrong(Right):
    def step(self, p, z, h):
        return super().step(p, z - z.mean(dim=0), h)

class NoCell:
    pass
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_cells.py").write_text(WRONG)
    (tmp_path / "no_python.py").write_text("this is no Python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.long
@pytest.mark.usefixtures("own_module")
def test_the_command_keeps_a_right_cell_and_names_the_claim_that_a_wrong_one_breaks(cli):
    right = cli("test-cell", "own_cells:Right")
    assert right.exit_code == 0
    assert "right keeps all" in right.stdout
    wrong = cli("test-cell", "own_cells.py:Wrong")
    assert wrong.exit_code == 1
    assert "A sequence gives the same outputs alone as in a batch" in wrong.stdout
    assert "broken: the output of sequence 0 differs by" in wrong.stdout


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("own_cells:Rigth", "'own_cells' has no class 'Rigth'. Did you mean 'Right'?"),
        ("own_cells:NoCell", "NoCell is not a cell: it must derive from rnnclf.cells.Cell."),
        ("no_such_module:Right", "cannot import 'no_such_module'"),
        ("no_python:Right", "cannot import 'no_python': invalid syntax (no_python.py, line 1)."),
        ("lstmm", "No cell named 'lstmm'. Did you mean 'lstm'?"),
    ],
)
def test_the_command_refuses_in_words_what_is_no_cell(cli, word, message):
    result = cli("test-cell", word)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.long
def test_the_command_knows_our_own_cells_by_name(cli):
    import json

    result = cli("test-cell", "basic", "--json")
    assert result.exit_code == 0
    assert [line["claim"] for line in json.loads(result.stdout)] == [words(claim) for claim in CLAIMS]
    assert "basic" in CELLS
    assert issubclass(CELLS["basic"], Cell)
