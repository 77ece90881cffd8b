"""What `rnnclf ensemble` prints, and where it looks for runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rnnclf.workflows.ensemble import choose
from rnnclf.workflows.runs import RunFolder
from tests.workflows.finished_runs import rewrite
from tests.workflows.predicted_runs import predicted_run, splits


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "all"
    for seed, cell in enumerate(("gru", "lstm", "basic")):
        predicted_run(folder / cell, splits(seed), cell=cell, name=f"try-{cell}")
    return folder


@pytest.fixture
def runs(made_once, tmp_path) -> Path:
    """The folder of three runs, in outputs/ of the current folder."""
    return Path(shutil.copytree(made_once, tmp_path / "outputs" / "all")).relative_to(tmp_path)


def test_members_and_what_they_are_worth_are_shown(cli, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    done = cli("ensemble", runs)
    assert (done.exit_code, done.stderr) == (0, "")
    found = choose([runs])
    rows = {line.split("  ")[0].split(",")[0].strip(): line for line in done.stdout.splitlines()}
    for member in found.members:
        row = rows[member.run.name].split()
        assert row[1:3] == [member.words, str(member.weight)]
        assert row[3] == f"{100 * member.scores['validation']['accuracy']:.2f}"
    for name, scores in (("ensemble", found.scores), ("best single run", found.single.scores)):
        assert f"{100 * scores['test']['accuracy']:.2f} %" in rows[name]
    assert f"{100 * found.mean_of_members('test', 'accuracy'):.2f} %" in rows["mean of members"]
    text = " ".join(done.stdout.split())
    assert "chosen from 3 runs by log loss on 60 validation sequences" in text
    assert "so its validation scores are too optimistic" in text
    assert "by McNemar's exact test" in text
    for line in ("saved in {}", "evaluate it: rnnclf eval {}", "use it: rnnclf predict {} new.csv"):
        assert line.format("outputs/all/ensemble.json") in done.stdout.splitlines()


def test_an_ensemble_of_one_says_that_averaging_does_not_help(cli, tmp_path):
    for name, right in (("good", 6.0), ("bad", -3.0)):
        predicted_run(tmp_path / "two" / name, splits(0, right), cell=name)
    done = cli("ensemble", "two")
    assert "no average of these runs has a lower validation log loss than the best single run" in done.stdout
    assert "McNemar" not in done.stdout


def test_json_is_what_is_in_the_file_and_where_that_is(cli, runs):
    done = cli("ensemble", runs, "most=2", "-o", "mine.json", "--json")
    answer = json.loads(done.stdout)
    assert answer.pop("file") == "mine.json"
    assert answer == json.loads(Path("mine.json").read_text())
    assert sum(member["weight"] for member in answer["members"]) <= 2
    assert {member["checkpoint"] for member in answer["members"]} <= {
        f"outputs/all/{cell}/best.safetensors" for cell in ("gru", "lstm", "basic")
    }


def test_runs_can_be_given_by_their_names(cli, runs):
    done = cli("ensemble", "try-gru", "try-lstm")
    assert done.exit_code == 0, done.output
    assert "try-gru is the run outputs/all/gru" in done.stderr
    assert (runs / "ensemble.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["most=3"], "Give the folder of a sweep, or those of the runs to average."),
        (["outputs/all", "most=none"], "most must be a number of members between 1 and 100, got 'none'."),
        (["outputs/all", "mots=3"], "'mots=3' is neither a path nor most=NUMBER. Did you mean 'most'?"),
        (["outputs/all/gru"], "An ensemble takes at least two runs"),
        (["nowhere"], "nowhere does not exist"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(cli, runs, words, message):
    done = cli("ensemble", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (runs / "ensemble.json").exists()


def test_nothing_in_a_record_acts_on_the_terminal(cli, runs):
    for cell in ("gru", "lstm"):
        run = RunFolder(runs / cell)
        plain = json.loads(run.status.read_text())["configuration"]
        rewrite(run.status, configuration={**plain, "optimizer": {"name": f"[red]\x1b[31m{cell}"}})
    done = cli("ensemble", runs)
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    assert "[red]" in done.stdout
