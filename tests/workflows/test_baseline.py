"""rnnclf baseline: well-known classifiers on the splits of rnnclf train, saved as runs."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from rnnclf.baselines import BASELINES, forest
from rnnclf.baselines.base import Baseline, LeftOutError
from rnnclf.cli import app
from rnnclf.console.baseline import baseline_line
from rnnclf.hydra_app.compose import load_config
from rnnclf.metrics import wilson_interval
from rnnclf.workflows.baseline import requested, sequences_of
from rnnclf.workflows.baseline_runs import baselines_beside, division
from rnnclf.workflows.runs import RunFolder
from tests.conftest import logging_restored

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

TRAIN = ("recipe=plain", "final_fit=true", "dataset.missing=mask", "hidden=4", "epochs=1", "threads=1")


def write_data(path: Path) -> None:
    """60 sequences of two channels and 5 to 8 steps, with gaps; the mean of one channel tells the class."""
    random = np.random.RandomState(0)
    rows = []
    for n in range(60):
        for t in range(5 + n % 4):
            x = "" if n % 7 == t == 2 else f"{n % 2 + 0.4 * random.standard_normal():.3f}"
            rows.append(f"s{n},{t},{x},{random.standard_normal():.3f},{'ab'[n % 2]}")
    path.write_text("\n".join(["id,time,u,v,label", *rows, ""]))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data, a forest for it, and a classifier that was trained on it."""
    folder = tmp_path_factory.mktemp("made")
    write_data(folder / "my.csv")
    with pytest.MonkeyPatch.context() as patch, logging_restored():
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(forest, "TREES", 50)
        run = CliRunner()
        done = run.invoke(app, ["baseline", "my.csv", "classifiers=forest", "seed=3", "threads=1"])
        assert done.exit_code == 0, done.output
        (folder / "printed.txt").write_text(done.stdout)
        done = run.invoke(app, ["train", "my.csv", *TRAIN, "hydra.run.dir=outputs/2026-01-01/trained"])
        assert done.exit_code == 0, done.output
        (folder / "trained.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def here(made, monkeypatch):
    """That folder, as the current one."""
    monkeypatch.chdir(made)
    monkeypatch.setenv("XDG_CACHE_HOME", str(made / "cache"))
    return made


def forest_of(folder):
    (found,) = folder.glob("outputs/*/*-forest")
    return RunFolder(found)


def ids_of(run, split):
    return pl.read_parquet(run.predictions).filter(pl.col("split") == split)["id"].to_list()


def test_a_baseline_is_saved_as_a_finished_run(made):
    run = forest_of(made)
    assert run.state() == "done"
    assert run.is_finished()
    results, found = run.read_results(), pl.read_parquet(run.predictions)
    for split in ("validation", "test"):
        rows = found.filter(pl.col("split") == split)
        right = rows.filter(pl.col("label") == pl.col("predicted")).height
        assert results[split]["correct"] == right
        assert results[split]["interval95"] == list(wilson_interval(right, rows.height))
        assert results[split]["commonest_rate"] == rows["label"].value_counts()["count"].max() / rows.height
    assert results["test"]["correct"] == 12
    assert (results["baseline"], results["cell"], results["seed"]) == ("forest", "forest", 3)
    provenance = json.loads(run.provenance.read_text())
    assert provenance["engine"] == "forest"
    assert provenance["threads"] == 1
    assert not run.checkpoints
    assert "forest on my.csv" in (run.path / "accuracy.txt").read_text()


def test_it_has_the_splits_of_train_and_learns_from_what_a_final_fit_learns_from(made):
    run, trained = forest_of(made), RunFolder(made / "outputs" / "2026-01-01" / "trained")
    for split in ("validation", "test"):
        assert ids_of(run, split) == ids_of(trained, split)
    assert run.read_results()["trained_on"] == 48
    assert run.read_results()["final_fit"] is True


def test_the_table_shows_each_baseline_above_the_commonest_class(made):
    printed = (made / "printed.txt").read_text()
    assert "my.csv: 48 sequences to learn from, 12 to be tested on" in printed
    assert "forest" in printed
    assert "100.00 %   75.75 – 100.00" in printed
    assert re.search(r"commonest class +50\.00 %", printed)
    assert "Gaps are interpolated for baselines" in printed


def test_train_ends_with_the_baselines_on_the_same_splits(made):
    assert "baselines: forest 100.00 %\n" in (made / "trained.txt").read_text()


def test_only_the_same_data_in_the_same_splits_are_compared(here, tmp_path):
    run = RunFolder(here / "outputs" / "2026-01-01" / "trained")
    (found,) = baselines_beside(run)
    assert found == forest_of(here).read_results()
    for key in ("data_fingerprint", "division"):
        other = RunFolder(tmp_path / key)
        other.path.mkdir()
        other.provenance.write_text(json.dumps(json.loads(run.provenance.read_text()) | {key: "other"}))
        assert baselines_beside(other) == []


def test_a_division_is_told_by_what_is_learned_from_and_what_is_tested(here):
    source = load_config(["my.csv", "dataset.missing=mask"]).dataset
    splits, others = source.load(), replace(source, split_seed=1).load()
    found = [division(part, fit) for part in (splits, others) for fit in (False, True)]
    assert len(set(found)) == 4
    assert found[1] == division(replace(source, validation=0.3).load(), True)


def test_without_baselines_train_names_the_command_for_own_data():
    words = ["recipe=plain", "dataset=table", "dataset.path=a b.csv", "cell=gru", "final_fit=true"]
    line = baseline_line("table", words, [])
    assert line.plain == (
        "baselines    rnnclf baseline recipe=plain dataset=table 'dataset.path=a b.csv' final_fit=true"
    )
    Path("a b.csv").touch()
    line = baseline_line("table", ["recipe=auto", *words[1:]], [])
    assert line.plain == "baselines    rnnclf baseline 'a b.csv' final_fit=true"
    assert baseline_line("digits", [], []) is None
    assert baseline_line("a stranger's", [], []) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("eval",), "holds a baseline, which has no checkpoint: its scores are in results.json."),
        (("resume",), "holds a baseline, which cannot be resumed: rnnclf baseline computes it anew."),
    ],
)
def test_commands_that_need_a_checkpoint_say_so(here, cli, words, message):
    done = cli(*words, forest_of(here).path)
    assert done.exit_code == 2
    assert message in done.stderr


def test_inspect_describes_it(here, cli):
    done = cli("inspect", forest_of(here).path)
    assert done.exit_code == 0
    assert "forest on my.csv" in done.stdout
    assert "100.00 % (12 of 12" in done.stdout


class Spy(Baseline):
    """Records what it gets, and always predicts the first class."""

    name, title = "spy", "Spy"
    calls: list[tuple[int, int]]

    def logits(self, known, asked, clock):
        Spy.calls.append((len(known), len(asked)))
        clock(1.0)
        return np.tile(np.linspace(0, -1, known.classes, dtype=np.float32), (len(asked), 1))


class Slow(Spy):
    name, title = "slow", "Slow"

    def logits(self, known, asked, clock):
        raise LeftOutError("would take about 3 h: allow it with max_time=4h")


@pytest.fixture
def spies(monkeypatch):
    Spy.calls = []
    monkeypatch.setattr(BASELINES, "_entries", {"spy": Spy, "slow": Slow})
    return Spy.calls


def test_validation_is_predicted_from_the_training_split_alone(here, cli, spies, tmp_path):
    for word in ("final_fit=true", "final_fit=false"):
        done = cli("baseline", "my.csv", "classifiers=spy", word, "--output", tmp_path)
        assert done.exit_code == 0
    assert spies == [(39, 9), (48, 12), (39, 21)]


def test_a_baseline_that_is_too_much_work_is_left_out(here, cli, spies, tmp_path):
    done = cli("baseline", "my.csv", "--output", tmp_path / "new", "--json")
    assert done.exit_code == 0
    assert "Slow would take about 3 h: allow it with max_time=4h." in done.stderr
    (found,) = json.loads(done.stdout)
    assert found["baseline"] == "spy"
    assert list(tmp_path.glob("new/*/*")) == [Path(found["folder"])]


def test_if_all_are_left_out_nothing_remains(here, cli, spies, tmp_path):
    done = cli("baseline", "my.csv", "classifiers=slow", "--output", tmp_path / "new")
    assert done.exit_code == 2
    assert done.stderr.endswith("error: Slow would take about 3 h: allow it with max_time=4h.\n")
    assert not (tmp_path / "new").exists()


def test_folds_are_those_of_train(here, spies, cli, tmp_path):
    words = ("dataset.folds=4", "dataset.fold=2")
    assert cli("baseline", "my.csv", "classifiers=spy", *words, "--output", tmp_path).exit_code == 0
    (run,) = tmp_path.glob("*/*")
    wanted = load_config(["my.csv", *words, "dataset.missing=mask"]).dataset.load().test.ids_N
    assert ids_of(RunFolder(run), "test") == wanted.tolist()


def test_pictures_have_baselines_too(spies, cli):
    assert cli("baseline", "dataset=digits", "classifiers=spy", "threads=1").exit_code == 0
    (found,) = Path("outputs").glob("*/*-spy")
    assert RunFolder(found).read_results()["test"]["total"] == 360


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("classifiers=dwt", "No baseline named 'dwt'. Did you mean 'dtw'? Known: dtw, forest, minirocket."),
        ("classifiers=", "No baseline named ''. Known: dtw, forest, minirocket."),
        ("max_time=ten", "max_time must be a time such as 30s, 10m or 1h, got 'ten'."),
        ("epochs=9", "'epochs' changes nothing in a baseline. These words do: classifiers, max_time,"),
        ("optimizer.lr=9", "'optimizer.lr' changes nothing in a baseline."),
        ("epocs=9", "No key named 'epocs'."),
        ("classifers=dtw", "No key named 'classifers'. Did you mean 'classifiers'?"),
    ],
)
def test_a_word_without_meaning_is_refused(cli, word, message):
    done = cli("baseline", "dataset=digits", word)
    assert done.exit_code == 2
    assert message in done.stderr


def test_times_are_read_in_all_units():
    assert requested(["dataset=digits", "classifiers=forest", "max_time=2m"]).seconds == 120


def test_without_the_extra_the_others_are_computed_and_the_command_to_install_it_is_named(monkeypatch):
    from rnnclf.baselines import base

    monkeypatch.setattr(base, "find_spec", lambda name: None)
    asked = requested(["dataset=digits"])
    assert asked.names == ["forest"]
    assert asked.notes == ["For 1-NN DTW and MiniRocket, pip install 'rnnclf[archive]'."]


def test_data_check_says_how_far_a_nearest_neighbour_gets(here, cli):
    done = cli("data", "check", "my.csv", "--json")
    quick = json.loads(done.stdout)["nearest_neighbour"]
    assert quick["total"] == 48
    assert quick["correct"] > quick["commonest"] == 24
    assert f"get {100 * quick['correct'] / 48:.2f} % of 48 training and validation" in " ".join(
        done.stderr.split()
    )
    assert "\n  rnnclf baseline my.csv\n" in done.stderr
    assert json.loads(cli("data", "check", "dataset=digits", "--json").stdout)["nearest_neighbour"] is None


def test_names_are_no_quantities_to_a_baseline(tmp_path):
    file, pages = tmp_path / "pages.csv", ("home", "cart", "help")
    steps = [(n, t, (7 * n + t * t) % 11) for n in range(20) for t in range(4)]
    rows = [f"s{n},{t},{x},{pages[x % 3]},{'ab'[n % 2]}" for n, t, x in steps]
    file.write_text("\n".join(["id,time,x,page,label", *rows, ""]))
    splits = load_config([str(file), "recipe=plain", "dataset.normalise=none"]).dataset.load()
    for x_CT in sequences_of(splits.train).x_N:
        places = [sorted(pages).index(pages[int(x) % 3]) for x in x_CT[0]]
        assert (x_CT[1:] == np.eye(3)[:, places]).all()
