"""A diagnosis costs a run nothing, survives being interrupted, and is put into words."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from rnnclf import checkpoint
from rnnclf.cells import CELLS
from rnnclf.console.diagnosis import plot_lines, show_diagnosis
from rnnclf.diagnosis import Figure, measure
from rnnclf.hydra_app import load_config
from rnnclf.workflows.diagnosis import COLUMNS, Diagnosis, in_words, read_diagnosis, record_diagnosis
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import Watcher, train
from tests.conftest import rows_without_times
from tests.diagnosed import batch, built

SMALL = ["dataset=digits", "dataset.validation=30", "dataset.test=1500", "hidden=4", "threads=1"]


# A run is what it would be without


@pytest.mark.long
def test_a_diagnosed_run_trains_bit_for_bit_like_one_that_is_not(tmp_path):
    words = ["cell=lstm", "layers=2", "dropout=0.3", "recurrent_dropout=0.3", "epochs=2", "augment=image"]
    tensors = {}
    for diagnosed in ("false", "true"):
        folder = RunFolder(tmp_path / diagnosed)
        folder.path.mkdir()
        train(load_config([*SMALL, *words, f"diagnose={diagnosed}"]), folder)
        assert folder.diagnosis.exists() == (diagnosed == "true")
        rows = rows_without_times(folder.epochs)
        tensors[diagnosed] = (rows, checkpoint.load(folder.last).tensors)
        del tensors[diagnosed][1]["epochs"]  # the rows once more, with their seconds
    (rows, before), (rows_too, after) = tensors.values()
    assert rows == rows_too
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


# The file


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


class Stopped(Watcher):
    """Ctrl-C between the first and the last batch of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch_to_stop = epoch

    def batch(self, progress):
        if progress.epoch == self.epoch_to_stop and progress.seen > progress.of / 2:
            raise KeyboardInterrupt


@pytest.mark.long
def test_a_resumed_run_has_the_file_of_one_that_was_not_interrupted(tmp_path):
    config = load_config([*SMALL, "batch_size=20", "epochs=3", "bidirectional=true", "diagnose=true"])
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    for folder in (whole, parts):
        folder.path.mkdir()
    report = train(config, whole)
    with pytest.raises(KeyboardInterrupt):
        train(config, parts, Stopped(3))
    assert {row["epoch"] for row in rows_of(parts.diagnosis)} == {"1", "2"}
    leftover = "3,1,forward,gradient,,1,0.5\n4,1,forward,gradient,,1,0.5\n5,1,forw"
    parts.diagnosis.write_text(parts.diagnosis.read_text() + leftover)
    resumed = resume_run(parts)
    assert parts.diagnosis.read_bytes() == whole.diagnosis.read_bytes()
    rows = rows_of(whole.diagnosis)
    assert tuple(rows[0]) == COLUMNS == ("epoch", "layer", "direction", "quantity", "part", "step", "value")
    steps = [(row["direction"], row["step"]) for row in rows if row["quantity"] == "gradient"]
    walks = [(direction, str(t)) for direction in ("forward", "backward") for t in range(1, 9)]
    assert steps == 3 * walks
    assert resumed is not None
    assert resumed.diagnosis == report.diagnosis
    assert report.diagnosis is not None
    assert report.diagnosis.epoch == 3


@pytest.mark.long
def test_a_file_without_a_whole_row_gives_no_diagnosis(tmp_path):
    path = tmp_path / "diagnosis.csv"
    assert read_diagnosis(path, load_config([])) is None
    for text in (
        b"",
        b"\xff\x00",
        b"1,1,forward,gradient,,1,abc\n",
        b"9" * 5000 + b",1,forward,gradient,,1,1\n",
    ):
        path.write_bytes(text)
        assert read_diagnosis(path, load_config([])) is None


def test_odd_numbers_survive_the_file(tmp_path, monkeypatch):
    odd = [Figure(1, "forward", "gradient", "", t + 1, v) for t, v in enumerate([np.inf, 0.0, 1e-30])]
    odd.append(Figure(1, "forward", "radius", "h", None, np.nan))
    monkeypatch.setattr("rnnclf.workflows.diagnosis.diagnose", lambda *_: odd)
    training = type("T", (), {"model": None, "recipe": type("R", (), {"loss": None})})
    record_diagnosis(tmp_path / "d.csv", 1, training, None)  # type: ignore[arg-type]
    found = read_diagnosis(tmp_path / "d.csv", load_config([]))
    assert found is not None
    assert str(list(found.figures)) == str(odd)


# In words


def made(
    gradient: list[float], saturation: float | None = 0.02, part: str = "tanh", layer: int = 1
) -> list[Figure]:
    figures = [Figure(layer, "forward", "gradient", "", t + 1, value) for t, value in enumerate(gradient)]
    if saturation is not None:
        figures.append(Figure(layer, "forward", "saturation", part, None, saturation))
    return figures


def words(figures: list[Figure], *line: str) -> tuple[str, str]:
    return in_words(tuple(figures), load_config(list(line)))


FALLING = [1e-8, 1e-6, 1e-4, 1e-2, 1.0]


@pytest.mark.long
def test_vanishing_gradients_are_told_with_what_might_help():
    first, second = words(made(FALLING))
    assert first == (
        "The gradient of the first of 5 steps is 1e-08 of that of the last, and below a thousandth of it up"
        " to step 3: what happened early cannot be learned."
    )
    assert second == "Try cell=lstm, cell=gru or readout=mean."
    assert (
        "is 1e-05 of that of the last: what happened early is hardly learned." in words(made([1e-5, 1.0]))[0]
    )
    assert "is 0 beside that of the last: what happened early cannot be" in words(made([0.0, 1.0]))[0]


@pytest.mark.long
def test_what_is_tried_already_is_not_advised():
    assert words(made(FALLING), "cell=lstm")[1] == "Try cell.chrono=5, cell=lem, cell=lru or readout=mean."
    assert words(made(FALLING), "cell=lstm", "cell.chrono=9")[1] == "Try cell=lem, cell=lru or readout=mean."
    assert words(made(FALLING), "cell=lem", "readout=max")[1] == "Try cell=lru."


@pytest.mark.long
def test_exploding_gradients_are_told_with_what_might_help():
    first, second = words(made([5e4, 1.0, 2.0]), "clip=null", "cell.recurrent_init=glorot")
    assert first == (
        "The gradient of the first of 3 steps is 2.5e+04 times that of the last: what happened early"
        " drowns out the rest."
    )
    rate = "a smaller learning rate (optimizer.lr is 0.002)"
    assert second == f"Try clip=1, cell.recurrent_init=orthogonal, cell=lstm, cell=gru or {rate}."
    assert words(made([1e9, 1.0]), "cell=gru")[1] == f"Try {rate}."
    assert "inf times" in words(made([np.inf, 1.0]))[0]


def test_a_healthy_net_is_told_so():
    first, second = words(made([0.2, 0.1, 0.4]))
    assert first.endswith("first of 3 steps is 0.5 of that of the last: what happened early can be learned.")
    assert second == "No sign of saturation: at most 2.0 % of the results of tanh are saturated."
    assert "no tanh or sigmoid" in words(made([0.2, 0.4], None))[1]


@pytest.mark.long
def test_saturation_is_told_with_what_might_help():
    second = words(made(FALLING, 0.625), "dataset.normalise=none")[1]
    assert second == (
        "62.5 % of the results of tanh in layer 1 are near -1 or 1, where gradients almost vanish: try a"
        " smaller learning rate (optimizer.lr is 0.002) or dataset.normalise=standard."
    )
    assert "0 or 1" in words(made([1.0], 0.95, "sigmoid"))[1]
    assert "No sign of saturation" in words(made([1.0], 0.85, "sigmoid"))[1]


def test_dead_units_are_told():
    assert words(made([0.0, 0.0]))[0].startswith("The states get no gradient")


def test_of_several_layers_the_worst_is_told():
    figures = made([0.5, 1.0]) + made(FALLING, layer=2) + made([50.0, 1.0], layer=3)
    assert "of 5 steps in layer 2 is 1e-08" in words(figures)[0]


@pytest.mark.long
@pytest.mark.parametrize("name", ["basic", "lstm"])
def test_what_is_advised_composes(name):
    line = [f"cell={name}", "clip=null"]
    config = load_config(line)
    cases = [made(g, s) for g in (FALLING, FALLING[::-1]) for s in (0.1, 0.9)]
    advice = " ".join(in_words(tuple(case), config)[1] for case in cases)
    found = re.findall(r"[\w.]+=\w+", advice)
    assert found
    for word in set(found):
        assert load_config([*line, word])


# On the screen


def test_the_plot_leaves_out_what_is_too_small_to_matter():
    lines = list(plot_lines([0.0, 1e-300, 1e-12, 1.0], 80))
    assert lines[6].startswith("   1e-12 │    ▁▁▁▁▁▁▁▁████")


def test_the_plot_is_logarithmic():
    lines = list(plot_lines([1e-3, 1e-2, 1e-1, 1e0], 80))
    assert len(lines) == 8
    heights = [
        sum(line[10 + column : 11 + column] not in ("", " ") for line in lines[:-1])
        for column in (0, 4, 8, 12)
    ]
    assert heights == [1, 3, 5, 7]
    assert lines[0].startswith("    1e+0 │")
    assert lines[6].startswith("    1e-3 │")
    assert lines[7].split() == ["step", "1", "4"]


@pytest.mark.parametrize("steps", [1, 2, 28, 71, 784])
@pytest.mark.parametrize("values", [[1e-30, 1.0], [0.0], [np.inf, np.nan]])
def test_the_plot_fits(steps, values):
    lines = list(plot_lines((values * steps)[:steps], 80))
    assert max(map(len, lines)) <= 80
    assert lines[-1].endswith(str(steps))


@pytest.mark.long
@pytest.mark.parametrize("name", ["lstm", "slstm", "cfc"])
def test_the_picture_fits(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    model, (x_BTI, y_B) = built(CELLS[name](hidden_size=6), layers=2, bidirectional=True), batch()
    figures = tuple(measure(model, x_BTI, y_B, None, cross_entropy))
    show_diagnosis(Diagnosis(3, figures, in_words(figures, load_config([f"cell={name}"]))))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("layer 1 forward") >= 1
    assert ("—" in shown) == (name == "cfc")


@pytest.mark.long
def test_a_run_ends_with_its_diagnosis(cli, only_run):
    done = cli("train", *SMALL, "epochs=1", "diagnose=true")
    assert done.exit_code == 0, done.output
    assert "gradient by time step, epoch 1" in done.stdout
    assert "The gradient of the first of 8 steps is" in done.stdout
    assert {row["epoch"] for row in rows_of(only_run() / "diagnosis.csv")} == {"1"}


@pytest.mark.long
def test_a_sweep_writes_its_diagnoses_and_shows_none(cli, tmp_path):
    done = cli("train", "-m", *SMALL, "epochs=1", "diagnose=true", "seed=0,1")
    assert done.exit_code == 0, done.output
    assert "time step" not in done.stdout
    assert len(list(tmp_path.glob("outputs/*/*/*/diagnosis.csv"))) == 2
