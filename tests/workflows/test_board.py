"""`rnnclf board`: the leaderboard of a folder of runs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from rnnclf.cells.lstm import LSTM
from rnnclf.console.board import board_tables
from rnnclf.console.screen import SafeConsole
from rnnclf.workflows.board import Board, leaderboard
from tests.workflows.finished_runs import finished_run, rewrite, share

PIXELS = {"picture": "28 × 28 × 1", "sequence": "pixels", "permutation": "bitrev"}


def shown(board: Board, width: int = 80) -> str:
    console = SafeConsole(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(board_tables(board, width))
    return captured.get()


@pytest.fixture
def outputs(tmp_path) -> Path:
    """Two cells on the digits, of which the better by validation is the worse by test; a run on psMNIST."""
    for cell, validation, test in (("gru", 0.9, 0.85), ("lstm", 0.8, 0.9)):
        for seed in range(3):
            folder = tmp_path / "outputs" / "2026-11-29" / f"{cell}{seed}"
            finished_run(folder, share(test - 0.01 * seed), cell=cell, seed=seed, validation=validation)
    finished_run(
        tmp_path / "outputs" / "2026-11-30" / "ps",
        share(0.9),
        data="mnist pixels, bitrev",
        fingerprint="e" * 64,
        reading=PIXELS,
        dataset={"name": "mnist"},
    )
    return tmp_path / "outputs"


def test_each_data_set_has_a_table_ranked_by_validation(outputs):
    board = leaderboard(outputs)
    digits, pixels = board.sections
    assert [(c.name, c.candidate.rank, len(c.runs)) for c in digits.contenders] == [
        ("cell=gru", 1, 3),
        ("cell=lstm", 2, 3),
    ]
    assert digits.contenders[1].candidate.p == 0.25  # three differences that are the same
    (single,) = pixels.contenders
    assert (single.name, single.candidate.interval95) == ("cell=gru hidden=8", (0.1, 0.9))  # of results.json
    text = shown(board)
    assert "digits, standard protocol, data ffffffff" in text
    assert "84.00 ± 1.00 %" in text


def test_other_splits_of_the_same_data_are_told_apart(outputs):
    finished_run(outputs / "other", share(0.8), dataset={"split_seed": 3})
    titles = [section.title for section in leaderboard(outputs).sections]
    assert titles == ["digits, dataset.split_seed=0", "digits, dataset.split_seed=3", "mnist pixels, bitrev"]


def test_published_figures_of_the_task_stand_beside(outputs):
    digits, pixels = leaderboard(outputs).sections
    assert (digits.task, digits.published, pixels.task) == (None, (), "psMNIST")
    known = {(known.cell, known.figure) for known in pixels.published}
    assert {("lstm", figure) for figure in LSTM.published if figure.task == "psMNIST"} < known
    accuracies = [known.figure.accuracy for known in pixels.published]
    assert accuracies == sorted(accuracies, reverse=True)
    text = shown(leaderboard(outputs), 120)
    assert "mnist pixels, bitrev, standard protocol, permutation bitrev" in text
    assert "published figures are for orientation" in text


def test_a_repeated_run_counts_once_and_unfinished_ones_not_at_all(outputs):
    again = outputs / "2026-11-30" / "again"
    finished_run(again, share(0.5), cell="gru", seed=0, validation=0.9, started=1.0, threads=4)
    finished_run(outputs / "2026-11-30" / "failed", share(0.5), cell="gru", seed=7)
    rewrite(outputs / "2026-11-30" / "failed" / "status.json", state="failed")
    board = leaderboard(outputs)
    gru = board.sections[0].contenders[0]
    assert [run.accuracy("test") for run in gru.candidate.done] == [0.5, 0.84, 0.83]
    assert (board.replaced, board.unfinished) == (1, 1)
    text = shown(board)
    assert "runs that are not done, and left out: 1" in text
    assert "a newer one has the same configuration and seed: 1" in text


def test_an_option_of_a_cell_is_named_among_configurations_with_that_cell(tmp_path):
    for number, (cell, reset) in enumerate([("gru", "after"), ("gru", "before"), ("lstm", None)]):
        run = finished_run(tmp_path / str(number), share(0.8), cell=cell, validation=0.9 - number / 10)
        if reset:
            plain = json.loads((run / "status.json").read_text())["configuration"]
            plain["cell"]["reset"] = reset
            rewrite(run / "status.json", configuration=plain)
    (section,) = leaderboard(tmp_path).sections
    assert [c.name for c in section.contenders] == [
        "cell=gru cell.reset=after",
        "cell=gru cell.reset=before",
        "cell=lstm",
    ]


def test_runs_of_versions_with_other_keys_do_not_share_a_name(tmp_path):
    finished_run(tmp_path / "old", share(0.8), validation=0.9)
    finished_run(tmp_path / "new", share(0.8), new_key=1)
    (section,) = leaderboard(tmp_path).sections
    assert {c.name for c in section.contenders} == {"cell=gru hidden=8", "cell=gru hidden=8 (2)"}


@pytest.mark.parametrize("form", ["", "--md", "--tex", "--csv", "--json"])
def test_a_folder_without_runs_is_one_sentence(cli, tmp_path, form):
    (tmp_path / "outputs").mkdir()
    done = cli("board", *filter(None, [form]))
    assert (done.exit_code, done.stderr) == (0, "")
    if form == "--json":
        assert json.loads(done.stdout)["sections"] == []
    else:
        assert done.stdout.strip() == ("" if form == "--csv" else "no finished runs below outputs")


def test_a_folder_that_does_not_exist_is_an_error(cli):
    done = cli("board", "nowhere")
    assert (done.exit_code, done.stderr) == (2, "error: nowhere does not exist: give a folder of runs.\n")


def test_every_form_has_a_line_for_each_configuration(cli, outputs):
    rows = list(csv.DictReader(io.StringIO(cli("board", "--csv").stdout)))
    assert [(row["configuration"], row["rank"], row["runs"]) for row in rows] == [
        ("cell=gru", "1", "3"),
        ("cell=lstm", "2", "3"),
        ("cell=gru hidden=8", "1", "1"),
    ]
    assert float(rows[0]["test_accuracy"]) == pytest.approx(0.84)
    found = json.loads(cli("board", "--json").stdout)
    assert [section["task"] for section in found["sections"]] == [None, "psMNIST"]
    markdown = cli("board", "--md").stdout
    assert "| 1 | cell=gru | 3 | 90.00 ± 0.00 % | 84.00 ± 1.00 % |" in markdown
    latex = cli("board", "--tex").stdout
    assert "1 & cell=gru & 3 & 90.00 $\\pm$ 0.00 \\% & 84.00 $\\pm$ 1.00 \\% &" in latex
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 3
