"""A run whose loss explodes goes back to its last good state, with half the learning rate."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from rnnclf.errors import DivergedError
from rnnclf.training import divergence, loop
from rnnclf.training.divergence import SPIKE_BATCHES, USUAL_BATCHES, Losses
from rnnclf.workflows.loading import build_model
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train
from tests.workflows.killed_runs import Witness, assert_as_in_peace, config_of, killed

# Guards


@pytest.mark.parametrize("level", [0.01, 0.7, 5.0])
def test_a_spike_is_many_high_losses_in_a_row(level):
    chance_loss, losses = math.log(10), Losses()
    high = 5.1 * max(level, chance_loss)
    assert not any(losses.diverged(level, chance_loss) for _ in range(USUAL_BATCHES))
    for _ in range(3):  # hard batches between others are none
        assert not any(losses.diverged(high, chance_loss) for _ in range(SPIKE_BATCHES - 1))
        assert not losses.diverged(level, chance_loss)
    spikes = [losses.diverged(high, chance_loss) for _ in range(SPIKE_BATCHES)]
    assert spikes == [False] * (SPIKE_BATCHES - 1) + [True]


def test_a_loss_that_rises_in_the_first_step_and_stays_high_has_diverged():
    chance_loss, losses = math.log(10), Losses()
    found = [losses.diverged(loss, chance_loss) for loss in [2.4] + [2.4e9] * USUAL_BATCHES]
    assert found == [False] * USUAL_BATCHES + [True]


def test_losses_high_from_the_start_or_well_below_chance_level_are_no_spike():
    losses = Losses()
    assert not any(losses.diverged(100.0, math.log(10)) for _ in range(300))
    losses = Losses([1e-6] * USUAL_BATCHES)
    assert not any(losses.diverged(2.0, math.log(10)) for _ in range(50))


# Relu and a rate far too high: gradients explode in the first epoch, and no longer at a part of it.
WILD = "hidden=20 cell.nonlinearity=relu optimizer=sgd clip=null optimizer.lr=100 on_divergence=rollback"


def gradient_of_one() -> str:
    """A pattern of what names a weight by its gradient; which of them is the largest differs by machine."""
    names = [name for name, _ in build_model(config_of(WILD), 8, 10).named_parameters()]
    return rf"gradient.* of ({'|'.join(map(re.escape, names))})(, with norm \S+)?"


@pytest.mark.long
def test_rolled_back_it_goes_on_with_half_the_rate_and_says_so(tmp_path):
    folder, witness = RunFolder(tmp_path), Witness()
    report = train(config_of(WILD), folder, witness)
    rollbacks = report.results["rollbacks"]
    assert rollbacks == folder.read_status()["rollbacks"]
    notes = [note for note in witness.notes if "Back to the start of epoch" in note]
    assert 1 < len(rollbacks) == len(notes)
    assert [rollback["factor"] for rollback in rollbacks] == [0.5 / 2**n for n in range(len(rollbacks))]
    assert {rollback["epoch"] for rollback in rollbacks} == {1}
    left = rollbacks[-1]["factor"]
    pattern = (
        r"The .* became (inf|nan) in epoch 1, at batch \d of 6: .*" + gradient_of_one() + rf"\. "
        rf"Back to the start of epoch 1, with {left:g} of the learning rate\."
    )
    assert re.fullmatch(pattern, notes[-1])
    factor = config_of(WILD).schedule.factor(5, 18)
    rows = folder.epochs.read_text().splitlines()
    assert float(rows[1].split(",")[5]) == pytest.approx(100 * left * factor)


@pytest.mark.long
@pytest.mark.parametrize("batches", [2, 5, 8, 11, 14])
@pytest.mark.parametrize("every", ["epoch", "1steps"])
def test_killed_before_or_after_a_rollback_it_ends_as_in_peace(every, batches, tmp_path):
    wild = WILD.replace("hidden=20", "hidden=6").replace("lr=100", "lr=1000")
    words = f"{wild} layers=2 dropout=0.2 checkpoint.every={every}"
    folder = killed(words, batches, tmp_path / "run")
    resume_run(folder)
    assert folder.read_results()["rollbacks"]
    assert_as_in_peace(folder, words)


def test_after_too_many_rollbacks_it_stops(tmp_path):
    words = "optimizer=sgd optimizer.lr=1e300 on_divergence=rollback clip=null"
    with pytest.raises(DivergedError, match=r"halved 5 times already\) or clipped gradients \(clip=1\)\."):
        train(config_of(words), RunFolder(tmp_path))
    status = RunFolder(tmp_path).read_status()
    assert status["state"] == "failed"
    assert len(status["rollbacks"]) == 5


@pytest.mark.long
def test_an_epoch_that_ends_where_no_step_can_be_made_is_rolled_back_too(tmp_path, monkeypatch):
    """The gradients explode at the first batch of the second epoch: what is wrong is the first."""
    words = "schedule=constant on_divergence=rollback"

    def differentiate(run: Any, *rest: Any) -> Any:
        if run.epoch == 1 and run.so_far.batches == 0 and run.rate_factor == 1:
            raise divergence.Divergence("The gradients explode")
        return real(run, *rest)

    (tmp_path / "half").mkdir()
    half = train(config_of("schedule=constant optimizer.lr=0.001"), RunFolder(tmp_path / "half"))
    real = loop.differentiate
    monkeypatch.setattr(loop, "differentiate", differentiate)
    report = train(config_of(words), RunFolder(tmp_path))
    assert [(one["epoch"], one["batch"], one["factor"]) for one in report.results["rollbacks"]] == [
        (2, 1, 0.5)
    ]
    assert report.scores == half.scores


def test_a_spike_stops_the_run_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(divergence, "SPIKE_FACTOR", 0.0)
    with pytest.raises(
        DivergedError, match=r"The loss rose to .* and stayed high in epoch 8, at batch 12 of 14"
    ):
        train(config_of("epochs=20 batch_size=20"), RunFolder(tmp_path))


@pytest.mark.long
@pytest.mark.parametrize(
    "words", ["cell=basic", "cell=lstm optimizer=sgd", "cell=irnn clip=null", "cell=gru"]
)
def test_ordinary_runs_raise_no_alarm(words, tmp_path):
    config = config_of(f"{words} epochs=15 hidden=30 batch_size=10 optimizer.lr=0.02")
    report = train(config, RunFolder(tmp_path))
    assert report.results["rollbacks"] == []


def test_the_weight_behind_it_is_named(tmp_path):
    with pytest.raises(DivergedError) as caught:
        train(config_of(WILD.replace("rollback", "stop")), RunFolder(tmp_path))
    assert re.search(gradient_of_one() + r"\. Try", str(caught.value))
    assert str(caught.value).endswith(
        "Try a smaller learning rate (optimizer.lr is 100), clipped gradients (clip=1) or"
        " on_divergence=rollback."
    )
