"""What people see: nothing is wider than their terminal, numbers are what they should be."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rnnclf.console.evaluation import show_evaluation
from rnnclf.console.metrics import accuracy_style
from rnnclf.console.screen import interval, log_handler, seconds_in_words, short
from rnnclf.console.sweep import show_sweep, sweep_table
from rnnclf.metrics import Evaluation, percent
from rnnclf.workflows.sweep import SweepRow, ranked
from tests.terminals import lines_of

SMALL = ("dataset=digits", "hidden=8", "epochs=2", "threads=1")


@pytest.mark.long
@pytest.mark.parametrize("words", [(), ("experiment=tutorial",), ("layers=2", "bidirectional=true")])
def test_a_run_on_a_terminal_shows_a_table_a_bar_and_a_panel(cli, terminal, words):
    done = cli("train", *words, *SMALL)
    assert done.exit_code == 0, done.output
    lines = lines_of(done.stdout)
    assert max(map(len, lines)) <= terminal
    assert sum(bool(re.match(r" +[12]/2 +\d\.\d{4} +\d+\.\d\d %", line)) for line in lines) == 2
    assert any("seq/s" in line and "left" in line for line in lines)
    assert any(line.startswith("╭") for line in lines)
    (folder,) = Path("outputs").glob("*/*")
    assert lines[-5:] == [
        f"run folder     {folder}",
        f"evaluate it    rnnclf eval {folder}",
        f"its mistakes   rnnclf eval {folder} --errors",
        f"a page to show rnnclf report {folder}",
        "",
    ]
    (course,) = [line for line in lines if "validation    " in line and "→" in line]
    assert re.search(r"validation    (▁█|█▁|▅▅)   \d+\.\d\d % → \d+\.\d\d %", course)


@pytest.mark.long
def test_the_bar_waits_for_the_first_look(cli, terminal, monkeypatch):
    monkeypatch.setattr("rnnclf.training.epoch._read_interval", lambda device: 4)
    done = cli("train", "dataset=digits", "hidden=4", "epochs=1", "threads=1")
    assert done.exit_code == 0, done.output


@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_on_a_terminal_fits(cli, terminal):
    done = cli(
        "train", "-m", "cell=basic,lstm", "hidden=4,8", "optimizer.lr=0.01,1e300", *SMALL[2:], SMALL[0]
    )
    assert max(map(len, lines_of(done.stdout))) <= terminal


@pytest.mark.long
def test_eval_on_a_terminal_fits(cli, terminal):
    cli("train", *SMALL)
    (folder,) = Path("outputs").glob("*/*")
    assert max(map(len, lines_of(cli("eval", folder).stdout))) <= terminal


def test_list_and_show_on_a_terminal_fit(cli, terminal):
    for words in (["list"], ["show", "cell", "lstm"], ["show", "experiment", "tutorial"]):
        assert max(map(len, lines_of(cli(*words).stdout))) <= terminal


def row(job: int, *words: str, validation: float = 0.5, **more: object) -> SweepRow:
    score = {"accuracy": validation, "interval95": [0.4, 0.6]}
    results = {"validation": score, "test": score, "parameters": 1234, "total_seconds": 5.0, "dataset": "x"}
    return SweepRow(job, [*words], more.get("state", "done"), results, str(more.get("error", "")), "")


def rendered(rows: list[SweepRow]) -> str:
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        console.print(sweep_table(ranked(rows), console.width))
    return captured.get()


def test_a_sweep_names_only_what_tells_its_jobs_apart():
    text = rendered([row(0, "cell=gru", "epochs=3"), row(1, "cell=lstm", "epochs=3")])
    assert text.count("epochs=3") == 1
    assert "all with epochs=3" in text


def test_a_sweep_without_any_finished_job_says_so(capsys):
    show_sweep(ranked([row(0, "seed=1", state="failed", error="no luck")]), Path("sweep"))
    shown = capsys.readouterr().out
    assert "#0 seed=1: failed: no luck" in shown
    assert "0 of 1 jobs done" in shown
    assert "evaluate it" not in shown


def test_many_classes_are_shown_without_a_matrix(capsys, cli):
    from rnnclf.hydra_app import load_config
    from rnnclf.workflows.evaluate import Evaluated

    names = tuple(f"class{k}" for k in range(30))
    every = np.arange(30)
    true_N, predicted_N = np.tile(every, 3), np.concatenate((every, every, (every + 1) % 30))
    found = Evaluation(names, true_N, np.eye(30, dtype=np.float32)[predicted_N], np.arange(90))
    result = Evaluated(Path("x"), load_config([]), "basic", 4, 1, 1, "test", found, 0.0, None, False)
    show_evaluation([result], Path("out"))
    shown = capsys.readouterr().out
    assert "rows: true" not in shown
    assert "1 of the 3 'class0' were classified as 'class1' (33.33 %)" in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "40 ms"),
        (0, "0.0 s"),
        (0.12, "0.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3671, "61 min 11 s"),
    ],
)
def test_seconds_are_said_as_one_would(seconds, words):
    assert seconds_in_words(seconds) == words


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Launching 1 jobs locally", "1 job"),
        ("Launching 12 jobs locally", "12 jobs"),
        ("Joblib.Parallel(n_jobs=-1,backend=loky,verbose=0) is launching 3 jobs", "3 jobs, in parallel"),
        ("#0 : cell=lstm", "#0 : cell=lstm"),
    ],
)
def test_what_launchers_say_is_said_plainly(capsys, message, said):
    log_handler().emit(logging.makeLogRecord({"msg": message, "levelno": logging.INFO}))
    assert capsys.readouterr().out == f"{said}\n"


@pytest.mark.parametrize(
    ("interval95", "guessing", "style"),
    [((0.2, 0.3), 0.1, "bold green"), ((0.08, 0.2), 0.1, "bold yellow"), ((0.2, 0.3), None, "bold green")],
)
def test_only_what_is_better_than_guessing_is_green(interval95, guessing, style):
    assert accuracy_style({"interval95": interval95, "commonest_rate": guessing}) == style


def test_percent_and_interval_have_two_digits():
    assert (percent(0.98765), interval((0.1, 1.0))) == ("98.77 %", "10.00 – 100.00")


def test_a_path_is_shown_as_one_would_type_it(tmp_path):
    assert short(tmp_path / "a b") == "'a b'"
    assert short(Path("/elsewhere/x")) == "/elsewhere/x"
