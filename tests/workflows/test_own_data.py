"""One's own data from the command line: made, checked, trained on, evaluated; and what is refused."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rnnclf import checkpoint
from rnnclf.config_reading import from_plain
from rnnclf.data import Learned
from rnnclf.data.findings import findings
from rnnclf.data.preparation import Preparation
from rnnclf.data.recordings import Recordings, recordings_of
from rnnclf.data.survey import digests, moments
from rnnclf.data.synthetic import WRITERS, Waves, make
from rnnclf.hydra_app import load_config
from rnnclf.workflows.data import check
from rnnclf.workflows.loading import build_model
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train
from tests.conftest import Cli

pytestmark = pytest.mark.long  # most train a run

FAST = ["hidden=4", "epochs=1", "threads=1"]
NAMES = [f"waves{suffix}" for suffix in WRITERS]


@pytest.fixture(scope="module")
def waves(tmp_path_factory) -> Path:
    """A folder with the same small sequences in every format."""
    folder = tmp_path_factory.mktemp("waves")
    for name in NAMES:
        make(folder / name, Waves(sequences=90, length=12))
    return folder


@pytest.fixture(scope="module")
def trained(waves, tmp_path_factory) -> Path:
    """The folder of a run on the table."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["dataset=table", f"dataset.path={waves / 'waves.csv'}", "dataset.missing=mask"]
    train(load_config([*words, *FAST]), RunFolder(folder))
    return folder


def one_line(done) -> str:
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


# The whole way, from outside the repository


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:-1]), NAMES[-1]]
)
def test_made_data_are_checked_trained_on_and_evaluated_with_a_line_each(cli: Cli, only_run, name):
    assert cli("data", "make", name, "--sequences", 90, "--length", 12).exit_code == 0
    checked = json.loads(cli("data", "check", name, "--json").stdout)
    assert checked["sequences"] == 90
    assert checked["channels"][0]["name"] in ("x0", "0")
    words = checked["train"].removeprefix("rnnclf train ").split()
    assert words == [name]  # the recipe masks what is missing
    trained = cli("train", *words, *FAST)
    assert trained.exit_code == 0, trained.output
    run = only_run()
    results = json.loads((run / "results.json").read_text())
    scored = json.loads(cli("eval", run, "--json").stdout)
    assert scored[0]["correct"] == results["test"]["correct"]
    everything = json.loads(cli("eval", run, "split=all", "--json").stdout)
    assert everything[0]["total"] == 90


@pytest.mark.long
def test_every_format_gives_the_same_data(waves):
    found = [check([str(waves / name)]) for name in NAMES]
    for other in found[1:]:
        assert other.sequences == found[0].sequences
        assert other.steps == found[0].steps
        assert [c.missing for c in other.channels] == [c.missing for c in found[0].channels]
        members = [
            {
                label: sum(split[label] for split in one.members.values())
                for label in ("calm", "hasty", "quick")
            }
            for one in (found[0], other)
        ]
        assert members[0] == members[1]


def test_the_same_seed_makes_the_same_file(tmp_path, cli):
    for name in ("a.csv", "b.csv"):
        cli("data", "make", name, "--sequences", 30, "--seed", 3)
    cli("data", "make", "c.csv", "--sequences", 30, "--seed", 4)
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.csv", "b.csv", "c.csv"))
    assert a == b != c


# What decides a prediction, and what does not


def trained_on(cli: Cli, folder: Path, *words: str) -> checkpoint.Checkpoint:
    done = cli("train", *words, *FAST, f"hydra.run.dir={folder}")
    assert done.exit_code == 0, done.output
    return checkpoint.load(folder / "best.safetensors")


def logits(saved: checkpoint.Checkpoint, path: Path) -> torch.Tensor:
    """Of all sequences of a file, in the order of the file."""
    config = from_plain(saved.header["config"])
    config.dataset.path = str(path)
    learned = Learned(Preparation.from_plain(saved.header["preparation"]), tuple(saved.header["classes"]))
    model = build_model(config, learned.preparation.input_size, len(learned.classes)).eval()
    checkpoint.fill(model, saved)
    data, _ = config.dataset.load_whole(learned)
    with torch.no_grad():
        return torch.cat(
            [model(*data.batch(indices_B)[::2]) for indices_B in torch.arange(len(data)).split(16)]
        )


def wide(path: Path, steps: int) -> Path:
    """Forty ragged sequences of two channels, a row each, padded with empty cells to `steps`."""
    random = np.random.default_rng(0)
    with open(path, "w", newline="") as file:
        write = csv.writer(file).writerow
        write(["label", *(f"{name}_{t}" for name in "uv" for t in range(steps))])
        for n in range(40):
            length = int(random.integers(2, 9))
            x_CT = random.normal(n % 2, 1, (2, length)).round(4)
            x_CT[:, :-1][random.random((2, length - 1)) < 0.2] = np.nan
            cells = [["" if np.isnan(v) else v for v in x_T] + [""] * (steps - length) for x_T in x_CT]
            write(["even" if n % 2 else "odd", *cells[0], *cells[1]])
    return path


@pytest.mark.long
@pytest.mark.parametrize("missing", ["mask", "interpolate"])
def test_predictions_do_not_depend_on_padding(cli, tmp_path, missing):
    narrow, broad = wide(tmp_path / "narrow.csv", 8), wide(tmp_path / "broad.csv", 50)
    words = ["dataset=table", f"dataset.missing={missing}", "cell=gru", "bidirectional=true"]
    saved = trained_on(cli, tmp_path / "run", f"dataset.path={narrow}", *words)
    again = trained_on(cli, tmp_path / "again", f"dataset.path={broad}", *words)
    torch.testing.assert_close(logits(saved, broad), logits(saved, narrow), rtol=0, atol=1e-6)
    torch.testing.assert_close(logits(again, narrow), logits(saved, narrow), rtol=0, atol=1e-6)


@pytest.mark.long
def test_other_data_are_prepared_as_the_training_data_were(cli, tmp_path, waves):
    """Scored on a file of the test sequences alone, the model gives what it gave them in its own file."""
    shutil.copy(waves / "waves.csv", tmp_path / "all.csv")
    words = ["dataset=table", f"dataset.path={tmp_path / 'all.csv'}", "dataset.missing=mask"]
    saved = trained_on(cli, tmp_path / "run", *words)
    lines = (tmp_path / "all.csv").read_text().splitlines(keepends=True)
    last = [line for line in lines[1:] if int(line.split(",")[0]) >= 60]
    (tmp_path / "some.csv").write_text(lines[0] + "".join(last))
    everything, some = (logits(saved, tmp_path / name) for name in ("all.csv", "some.csv"))
    torch.testing.assert_close(some, everything[60:], rtol=0, atol=1e-6)
    scored = cli("eval", tmp_path / "run", f"dataset.path={tmp_path / 'some.csv'}", "split=all", "--json")
    assert json.loads(scored.stdout)[0]["total"] == 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset.missing=drop"], "The model was trained with dataset.missing=mask"),
        (["dataset.normalise=none"], "The model was trained with dataset.normalise=quantiles"),
        (["dataset.path=nowhere.csv"], "nowhere.csv does not exist"),
        (["dataset.path=narrow.csv"], "trained on the channels x0, x1, x2; these data have u, v"),
        (
            ["dataset.path=foreign.csv", "split=all"],
            "knows the classes calm, hasty, quick; these data also have bored",
        ),
        (["dataset=digits"], "trained on series (waves.csv): it cannot be evaluated on pictures (digits)"),
    ],
)
def test_eval_refuses_data_that_mean_something_else(cli, tmp_path, waves, trained, words, message):
    path = waves / "waves.csv"
    wide(tmp_path / "narrow.csv", 8)
    (tmp_path / "foreign.csv").write_text(path.read_text().replace("calm", "bored"))
    assert message in one_line(cli("eval", trained, *words))


@pytest.mark.long
def test_eval_refuses_another_order_of_the_pixels(cli, tmp_path):
    words = ["dataset=digits", "dataset.sequence=pixels", "dataset.validation=30", "dataset.test=1400"]
    trained_on(cli, tmp_path / "run", *words, "dataset.permutation=bitrev")
    refused = one_line(cli("eval", tmp_path / "run", "dataset.permutation=none"))
    assert "trained with dataset.permutation=bitrev: it cannot be evaluated with" in refused
    saved = checkpoint.load(tmp_path / "run" / "best.safetensors")
    header = {key: value for key, value in saved.header.items() if key != "format"}
    header["reading"] = {**header["reading"], "permutation_sha256": "0" * 64}
    checkpoint.save(tmp_path / "other.safetensors", header, saved.tensors)
    assert "permutation_sha256" in one_line(cli("eval", "other.safetensors"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["reading"]["permutation_sha256"] == saved.header["reading"]["permutation_sha256"]
    assert "bitrev" in cli("eval", tmp_path / "run").stdout


@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_over_folds_covers_every_sequence(cli, only_run, waves):
    words = [
        f"dataset.path={waves / 'waves.csv'}",
        "dataset=table",
        "dataset.missing=mask",
        "dataset.folds=3",
    ]
    assert cli("train", "-m", *words, "dataset.fold=0,1,2", *FAST).exit_code == 0
    results = [json.loads((only_run() / n / "results.json").read_text()) for n in "012"]
    assert sum(result["test"]["total"] for result in results) == 90


# What a check tells


def told(recordings: Recordings) -> str:
    found = findings(recordings, moments(recordings), digests(recordings))
    return "\n".join(finding.sentence for finding in found)


def noise(n: int = 40) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 5, 2))


def test_clean_data_have_no_findings():
    assert told(recordings_of(noise(), np.arange(40) % 2)) == ""


def changed(what: str) -> Recordings:
    x_NTC, y_N, more = noise(), np.arange(40) % 2, {}
    if what == "gap":
        x_NTC[3, 2, 1] = np.nan
    if what == "sentinel":
        x_NTC[[1, 2], 3, 0] = -999
    if what == "copy":
        x_NTC[7] = x_NTC[5]
    if what == "torn":
        x_NTC[6] = x_NTC[5]
    if what == "constant":
        x_NTC[..., 1] = 3
    if what == "rare":
        y_N = (np.arange(40) < 3).astype(int)
    if what == "short":
        more["lengths_N"] = np.where(np.arange(40) < 2, 1, 5)
    if what == "uneven":
        more["times_S"] = np.random.default_rng(0).exponential(size=200).cumsum()
    return recordings_of(x_NTC, y_N, **more)


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("gap", "1 of 400 values (0.2%) are missing, in 1 of 40 sequences."),
        ("sentinel", "Channel '0' is -999 at 2 steps and"),
        ("copy", "1 sequence is a copy of others (number 7 of number 5)."),
        ("torn", "1 sequence occurs with more than one label ('0' and '1')"),
        ("constant", "A channel is constant: 1."),
        ("rare", "Class '0' has 37 sequences, '1' 3."),
        ("short", "2 sequences have only one step."),
        ("uneven", "Steps are not evenly spaced"),
    ],
)
def test_a_check_tells_what_is_odd(what, sentence):
    assert sentence in told(changed(what))


def test_a_value_that_is_common_is_not_suspicious():
    x_NTC = noise() * 300  # reaches beyond 999 in both directions
    x_NTC[0, 0, 0] = 999
    assert "999" not in told(recordings_of(x_NTC, np.arange(40) % 2))


def test_a_check_proposes_words_that_train(cli, waves):
    found = check([str(waves / "waves.csv")])
    assert found.obstacle is None
    assert found.line == f"rnnclf train {waves / 'waves.csv'}"
    plain = check([str(waves / "waves.csv"), "recipe=plain"])
    assert plain.words[1:] == ("recipe=plain", "dataset.missing=mask")
    assert check([*plain.words]).words == plain.words


@pytest.mark.parametrize(
    "name",
    ["a\\b c.csv", "it's.csv", "x,y.csv", "(1).csv", "1e3"]
    + [
        pytest.param(name, marks=pytest.mark.long)
        for name in ("a=b.csv", "mesuré.csv", "null", "true", "x~y.csv", "a${b}.csv", "lstm")
    ],
)
def test_the_line_that_a_check_prints_names_the_file_that_was_checked(waves, tmp_path, name):
    target = tmp_path / name if name.endswith(".csv") else tmp_path / name / "part.csv"
    target.parent.mkdir(exist_ok=True)
    shutil.copy(waves / "waves.csv", tmp_path / "source.csv")
    shutil.copy(tmp_path / "source.csv", target)
    found = check([name] if target.parent == tmp_path else [f"{name}/part.csv"])
    program, command, *words = shlex.split(found.line)
    assert (program, command) == ("rnnclf", "train")
    assert load_config(words).dataset.path == str(target)


def test_what_cannot_be_divided_is_shown_and_refused(cli, tmp_path):
    lines = [
        "id,t,x,label",
        *(f"{n},{t},{n * t},{'b' if n == 9 else 'a'}" for n in range(10) for t in range(3)),
    ]
    (tmp_path / "few.csv").write_text("\n".join(lines))
    done = cli("data", "check", "few.csv")
    assert done.exit_code == 2
    assert "10 sequences of 3 steps" in done.stdout
    assert "Class 'b' has only one sequence" in done.stderr
    assert "rnnclf train" not in done.stdout


@pytest.mark.long
def test_a_check_and_a_list_of_words_need_no_torch(waves):
    import subprocess
    import sys

    code = (
        "import sys; from rnnclf.workflows.data import check;"
        f"check([{str(waves / 'waves.csv')!r}]); check(['dataset=digits']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "nowhere.csv"], "nowhere.csv does not exist"),
        (["check", "odd.xyz"], "odd.xyz is none of the kinds of data that rnnclf reads: arrays (.npz"),
        (["check", "dataset=table"], "dataset=table needs dataset.path=…"),
        (["make", "waves.xyz"], "the name must end in .csv, .tsv, .parquet, .npz, or have no suffix"),
        (["make", "odd.csv"], "already exists and is not overwritten"),
        (["make", "new.csv", "--sequences", 3], "sequences must be at least 30"),
        (["make", "new.csv", "--missing", 2], "missing must be at least 0 and at most 0.9"),
    ],
)
def test_data_commands_refuse_in_words(cli, tmp_path, words, message):
    (tmp_path / "odd.xyz").write_text("?")
    (tmp_path / "odd.csv").write_text("?")
    assert message in one_line(cli("data", *words))
    assert (tmp_path / "odd.csv").read_text() == "?"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["odd.csv", "odd.xyz"]


def test_at_80_columns_no_line_is_longer(cli, monkeypatch, waves):
    monkeypatch.setenv("COLUMNS", "80")
    shown = cli("data", "check", waves / "waves.csv").stdout
    lines = [line for line in shown.splitlines() if not line.startswith("  rnnclf ")]
    assert max(map(len, lines)) <= 80
    assert len(cli("data", "check", "dataset=digits").stdout.splitlines()) < 60
