"""Seeds: the runs of a configuration are one line, ranked by validation, compared over common seeds."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from rnnclf.console.sweep import sweep_table
from rnnclf.workflows.sweep import Ranking, rank_sweep
from tests.workflows.finished_sweeps import Done, finished_sweep

GRU = [0.90, 0.94, 0.93, 0.91, 0.92]
SAME = [0.91, 0.93, 0.92, 0.92, 0.92]
WORSE = [0.60, 0.66, 0.63, 0.60, 0.61]


def seeds(word: str, accuracies: list[float], validation: float) -> list[Done]:
    return [
        Done((word, f"seed={seed}", "epochs=1"), validation + seed / 100, accuracy)
        for seed, accuracy in enumerate(accuracies)
    ]


def shown(ranking: Ranking, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(sweep_table(ranking, width))
    return captured.get()


def lines_of(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.fixture
def sweep(tmp_path):
    """Three cells and five seeds; the lucky one by validation is a single run of the second."""
    lucky = Done(("cell=lstm", "seed=5", "epochs=1"), 1.0, 0.92)
    return finished_sweep(
        tmp_path / "sweep",
        *seeds("cell=basic", WORSE, 0.5),
        *seeds("cell=lstm", SAME, 0.7),
        lucky,
        *seeds("cell=gru", GRU, 0.8),
    )


def test_a_configuration_is_one_line_and_seeds_are_not_ranked(sweep):
    ranking = rank_sweep(sweep)
    assert [(c.words, len(c.done), c.rank) for c in ranking.candidates] == [
        (("cell=gru", "epochs=1"), 5, 1),
        (("cell=lstm", "epochs=1"), 6, 2),
        (("cell=basic", "epochs=1"), 5, 3),
    ]
    first = ranking.candidates[0]
    assert (first.accuracy, first.test.sd) == (pytest.approx(0.92), pytest.approx(0.0158113883))
    assert first.interval95 == pytest.approx((0.9003675684, 0.9396324316))


def test_what_is_not_distinguished_from_the_first_is_marked(sweep):
    ranking = rank_sweep(sweep)
    first, second, third = (candidate.p for candidate in ranking.candidates)
    assert (first, second) == (None, pytest.approx(1.0))
    assert third < 1e-4
    lines = [line.split() for line in shown(ranking).splitlines()]
    rows = {line[1]: line for line in lines if line[:1] in (["1"], ["2"], ["3"])}
    assert "*" in rows["cell=lstm"]
    assert "*" not in rows["cell=gru"] + rows["cell=basic"]
    assert "p" in rows["cell=basic"]
    assert "*: not distinguished from the first" in shown(ranking)


def test_the_files_of_a_sweep_have_a_column_for_each_key_that_varies(sweep):
    rank_sweep(sweep)
    lines, runs = lines_of(sweep / "sweep.csv"), lines_of(sweep / "runs.csv")
    assert [(line["rank"], line["cell"], line["done"]) for line in lines] == [
        ("1", "gru", "5"),
        ("2", "lstm", "6"),
        ("3", "basic", "5"),
    ]
    assert {"seed", "epochs"}.isdisjoint(lines[0])
    assert [(run["job"], run["cell"], run["seed"]) for run in runs][4:7] == [
        ("4", "basic", "4"),
        ("5", "lstm", "0"),
        ("6", "lstm", "1"),
    ]
    (section,) = json.loads((sweep / "sweep.json").read_text())["sections"]
    assert section["configurations"][0]["jobs"] == [11, 12, 13, 14, 15]
    assert section["configurations"][0]["test"]["accuracy"] == pytest.approx(0.92)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal(sweep, width):
    lines = shown(rank_sweep(sweep), width).splitlines()
    assert max(map(len, lines)) <= width
    assert sum("92.00 ± 1.58 %" in line for line in lines) == 1


def test_two_seeds_are_too_few(tmp_path):
    jobs = *seeds("cell=gru", GRU[:2], 0.8), *seeds("cell=lstm", SAME[:2], 0.7)
    text = shown(rank_sweep(finished_sweep(tmp_path / "sweep", *jobs)))
    assert text.count("too few") == 4  # two intervals, a comparison, the legend
    assert "it takes 3 runs to tell" in text


def test_data_sets_are_not_ranked_against_each_other(tmp_path):
    jobs = [
        Done((f"dataset={data}", word, f"seed={seed}"), accuracy, accuracy)
        for data, word, accuracy in (
            ("easy", "cell=gru", 0.99), ("hard", "cell=gru", 0.5), ("hard", "cell=lstm", 0.6),
        )
        for seed in range(2)
    ]  # fmt: skip
    sections = rank_sweep(finished_sweep(tmp_path / "sweep", *jobs)).sections
    assert [(s.data, [(c.words[1], c.rank) for c in s.candidates]) for s in sections] == [
        ("easy", [("cell=gru", 1)]),
        ("hard", [("cell=lstm", 1), ("cell=gru", 2)]),
    ]


def test_ways_to_prepare_the_same_sequences_are_ranked_and_other_splits_are_not(tmp_path):
    words = "dataset.normalise=none", "dataset.normalise=standard", "dataset.split_seed=1"
    jobs = [Done((word,), 0.5, 0.5) for word in words]
    ranking = rank_sweep(finished_sweep(tmp_path / "sweep", *jobs))
    assert [len(section.candidates) for section in ranking.sections] == [2, 1]
    assert "x, dataset.split_seed=1" in shown(ranking)


def test_doubtful_runs_are_marked_and_failed_ones_left_out(tmp_path):
    jobs = [
        Done(("cell=gru", "seed=0"), 0.9, 0.9),
        Done(("cell=gru", "seed=1"), 0.9, 0.9, warnings=["The channel 'n' tells the class."]),
        Done(("cell=gru", "seed=2"), 0.0, 0.0, error="The loss became nan."),
    ]
    text = shown(rank_sweep(finished_sweep(tmp_path / "sweep", *jobs)))
    assert "! #1: The channel 'n' tells the class." in text
    assert "2 of 3" in text
    assert "#2 seed=2: failed: The loss became nan." in text


@pytest.mark.long
def test_resume_adds_seeds_and_eval_shows_them_on_request(two_jobs, cli, monkeypatch):
    """To a sweep over seeds that were typed one by one."""
    resumed = cli("resume", two_jobs, "seeds=3")
    assert (resumed.exit_code, "1 added: #2" in resumed.output) == (0, True)
    assert [line["seed"] for line in lines_of(two_jobs / "runs.csv")] == ["0", "1", "2"]
    (line,) = lines_of(two_jobs / "sweep.csv")
    assert (line["jobs"], line["done"]) == ("0 1 2", "3")
    monkeypatch.setenv("COLUMNS", "120")
    mean = f"{100 * float(line['test_accuracy']):.2f} ± {100 * float(line['test_sd']):.2f} %"
    assert mean in resumed.stdout
    short, full = cli("eval", two_jobs).stdout, cli("eval", two_jobs, "--runs").stdout
    assert mean in short
    assert mean in full
    assert ("seed=1" in short, "seed=1" in full) == (False, True)
