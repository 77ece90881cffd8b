"""The commands as a user types them: results, records, exit codes, messages."""

from __future__ import annotations

import copy
import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from rnnclf import checkpoint
from rnnclf.cells import CELLS
from rnnclf.hydra_app import setup
from tests.cli_runs import SMALL
from tests.conftest import rows_without_times

RUN_FILES = {
    ".hydra", "status.json", "train.log", "epochs.csv", "results.json", "accuracy.txt", "accuracy.svg",
    "provenance.json", "best.safetensors", "last.safetensors", "predictions.parquet", ".lock",
    "trained_on.npz",
}  # fmt: skip

OWN_CELL = '''
from dataclasses import dataclass

from rnnclf.cells import GatedCell
from rnnclf.options import option
from tests.conftest import rows_without_times


@dataclass
class Leaky(GatedCell):
    """A leaky tanh unit."""

    name: str = "leaky"
    gates = ("h",)
    rate: float = option(0.5, "share of the state that is renewed", above=0, high=1)

    def step(self, p, z, h):
        h = (1 - self.rate) * h + self.rate * (z + h @ p.recurrent_weight.t()).tanh()
        return h, h
'''


@pytest.mark.long
def test_a_run_leaves_every_file_of_the_contract(cli, only_run):
    done = cli("train", *SMALL)
    assert done.exit_code == 0, done.output
    folder = only_run()
    assert {path.name for path in folder.iterdir()} == RUN_FILES
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "done"
    assert status["overrides"] == list(SMALL)
    results = json.loads((folder / "results.json").read_text())
    assert results["test"]["total"] == 360
    assert results["test"]["accuracy"] == results["test"]["correct"] / 360
    low, high = results["test"]["interval95"]
    assert low < results["test"]["accuracy"] < high
    assert len(results["epoch_seconds"]) == results["epochs"] == 2
    assert [row["epoch"] for row in rows_without_times(folder / "epochs.csv")] == ["1", "2"]
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["threads"] == 1
    assert len(provenance["data_fingerprint"]) == 64
    picture = (folder / "accuracy.svg").read_text()
    assert "<svg" in picture
    assert "url(http" not in picture
    assert "95 % interval" in (folder / "accuracy.txt").read_text()


@pytest.mark.long
def test_off_a_terminal_each_epoch_is_one_unbroken_line(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = cli("train", *SMALL).stdout.splitlines()
    assert [
        line for line in lines if re.fullmatch(r"epoch [12]/2: train loss .*, (\d+\.\d s|\d+ ms)", line)
    ] == lines[1:3]
    assert "\x1b" not in "".join(lines)
    assert lines[-1].startswith("evaluate it: rnnclf eval outputs/")


@pytest.mark.long
def test_the_same_seed_gives_the_same_epochs(cli, tmp_path):
    for name in ("a", "b"):
        assert cli("train", *SMALL, "dropout=0.2", f"hydra.run.dir={name}").exit_code == 0
    assert rows_without_times(tmp_path / "a/epochs.csv") == rows_without_times(tmp_path / "b/epochs.csv")
    assert (tmp_path / "a/best.safetensors").read_bytes() == (tmp_path / "b/best.safetensors").read_bytes()


@pytest.mark.long
def test_the_checkpoint_in_use_is_the_best_by_validation(cli, only_run):
    cli("train", *SMALL[:2], "epochs=6", "threads=1")
    rows = rows_without_times(only_run() / "epochs.csv")
    best = max(rows, key=lambda row: (float(row["validation_accuracy"]), -float(row["validation_loss"])))
    results = json.loads((only_run() / "results.json").read_text())
    assert str(results["best_epoch"]) == best["epoch"]
    assert results["validation"]["accuracy"] == float(best["validation_accuracy"])
    assert checkpoint.read_header(only_run() / "best.safetensors")["epoch"] == results["best_epoch"]


@pytest.mark.long
def test_the_standard_protocol_keeps_the_test_split_out_of_the_epochs(cli, only_run):
    cli("train", *SMALL)
    assert "test_accuracy" not in rows_without_times(only_run() / "epochs.csv")[0]


@pytest.mark.long
def test_the_tutorial_protocol_prints_the_test_accuracy_and_says_so(cli, only_run):
    done = cli("train", "experiment=tutorial", *SMALL)
    assert "tutorial protocol" in done.output
    assert len(re.findall(r"test accuracy \d+\.\d+ %, learning rate", done.output)) == 2
    assert "test_accuracy" in rows_without_times(only_run() / "epochs.csv")[0]
    assert json.loads((only_run() / "results.json").read_text())["protocol"] == "tutorial"
    assert "tutorial protocol" in (only_run() / "accuracy.txt").read_text()


@pytest.mark.long
def test_json_is_all_there_is_on_stdout(cli, only_run):
    done = cli("train", "--json", *SMALL)
    answer = json.loads(done.stdout)
    assert answer.pop("folder") == str(only_run())
    assert answer == json.loads((only_run() / "results.json").read_text())
    assert "epoch 2/2" in done.stderr


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("flag", "place"),
    [("--multirun", 1), *(pytest.param("-m", place, marks=pytest.mark.slow) for place in (0, 2))],
)
def test_a_sweep_runs_every_job_wherever_the_flag_stands(cli, only_run, flag, place):
    words = ["cell=basic,gru", "dataset=digits"]
    words.insert(place, flag)
    done = cli("train", *words, "hidden=4", "epochs=1", "threads=1")
    assert done.exit_code == 0, done.output
    states = [json.loads((only_run() / n / "status.json").read_text())["state"] for n in "01"]
    assert states == ["done", "done"]


@pytest.mark.long
def test_a_sweep_ends_with_one_ranked_table_and_eval_repeats_its_counts(cli, only_run):
    done = cli("train", "-m", "cell=basic,lstm,gru", "hidden=4,20", "dataset=digits", "epochs=2", "threads=1")
    assert done.exit_code == 0, done.output
    assert done.output.count("95 % interval   parameters") == 1
    sweep = only_run()
    with open(sweep / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    accuracies = [float(row["validation_accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert sorted(row["jobs"] for row in rows) == list("012345")
    assert {path.name for path in sweep.iterdir()} >= {"multirun.yaml", "accuracy.txt", "accuracy.svg"}
    evaluated = json.loads(cli("eval", sweep, "--json").stdout)
    recorded = [json.loads((sweep / n / "results.json").read_text())["test"] for n in "012345"]
    assert [(e["correct"], e["total"]) for e in evaluated] == [(r["correct"], r["total"]) for r in recorded]


@pytest.mark.long
def test_a_failing_job_leaves_the_others_running_and_is_listed(cli, only_run):
    done = cli("train", "-m", "optimizer.lr=1e38,0.01", *SMALL)
    assert done.exit_code == 1
    assert "1 of 2 jobs done" in done.output
    assert done.stderr.startswith("error: #0 The loss became")
    assert re.search(r"#0 optimizer.lr=1e\+38: failed: The loss became \S+ in\s+epoch 1", done.stdout)
    with open(only_run() / "runs.csv") as file:
        assert [(row["job"], row["state"]) for row in csv.DictReader(file)] == [
            ("0", "failed"),
            ("1", "done"),
        ]


@pytest.mark.long
def test_a_diverging_run_names_epoch_and_batch_and_exits_with_2(cli, only_run):
    done = cli("train", "optimizer.lr=1e38", *SMALL)
    assert done.exit_code == 2
    assert re.search(r"^error: The loss became \S+ in epoch 1, at batch \d+ of 9: the largest", done.stderr)
    status = json.loads((only_run() / "status.json").read_text())
    assert status["state"] == "failed"
    assert "epoch 1" in status["error"]
    assert "The loss became" in (only_run() / "train.log").read_text()


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hiden=3"], "Did you mean 'hidden'?"),
        (["cell=gruu"], "Did you mean 'gru'?"),
        (["hidden=1,2"], "add -m"),
        (["--mutlirun"], "Did you mean '--multirun'?"),
        (["-m", "hidden=3,-4"], "no job was started"),
        pytest.param(["-cd", "/nowhere"], "'/nowhere' not found", marks=pytest.mark.long),
        pytest.param(
            ["-m", "hidden=3,abc"], "at least 1 and at most 1000000, got 'abc'", marks=pytest.mark.long
        ),
        pytest.param(
            ["-m", "cell=basic,gru", "cell.nonlinearity=relu"],
            "cell=gru has no option 'nonlinearity'",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_wrong_word_starts_nothing(cli, tmp_path, words, message):
    done = cli("train", *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.long
def test_a_missing_device_is_named(cli):
    done = cli("train", *SMALL, "device=mps")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: device=mps is not available here; available: ")


@pytest.mark.long
def test_a_folder_with_results_is_not_overwritten(cli, tmp_path):
    assert cli("train", *SMALL, "hydra.run.dir=mine").exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    done = cli("train", *SMALL, "hydra.run.dir=mine", "seed=1")
    assert done.exit_code == 2
    assert "mine holds the results of an earlier run" in done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()} == before


def test_an_output_folder_that_cannot_be_made_is_named(cli, tmp_path):
    (tmp_path / "outputs").write_text("a file")
    done = cli("train", *SMALL)
    assert done.exit_code == 2
    assert re.match(r"error: Cannot create the folder outputs/\S+: outputs is a file\.", done.stderr)


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--help"], "hidden=150 "),
        (["--cfg", "job"], "hidden: 150"),
        (["--cfg", "job", "-p", "optimizer", "optimizer=sgd"], "momentum: 0.9"),
        (["hidden=7", "--info", "searchpath"], "Search path"),
        (["--info", "defaults", "hidden=7"], "schema/cell/basic"),
        (["--version"], "Hydra 1."),
        (["--hydra-help"], "--multirun"),
    ],
)
def test_the_flags_of_hydra_work(cli, words, said):
    done = cli("train", *words)
    assert done.exit_code == 0, done.output
    assert said in done.output
    assert "schema/cell: " not in done.output
    assert "install=bash" not in done.output


def test_a_config_folder_of_the_user_adds_choices(cli, tmp_path):
    (tmp_path / "mine" / "cell").mkdir(parents=True)
    text = "defaults:\n  - /schema/cell/lstm@_here_\n  - _self_\nhidden_size: ${hidden}\nforget_bias: 3.0\n"
    (tmp_path / "mine" / "cell" / "sticky.yaml").write_text(text)
    done = cli("train", "-cd", "mine", "cell=sticky", "--cfg", "job", "-p", "cell")
    assert "forget_bias: 3.0" in done.output


@pytest.fixture
def own_cell(tmp_path, monkeypatch) -> Iterator[str]:
    """The module of a cell of the user's; what it adds to the registries is taken back at the end."""
    (tmp_path / "leaky_cells.py").write_text(OWN_CELL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(CELLS, "_entries", dict(CELLS.items()))
    monkeypatch.setattr(ConfigStore.instance(), "repo", copy.deepcopy(ConfigStore.instance().repo))
    yield "leaky_cells"
    sys.modules.pop("leaky_cells", None)


@pytest.mark.long
def test_own_cells_train_and_evaluate_by_their_name(cli, own_cell, monkeypatch):
    own = (f"plugins=[{own_cell}]", "cell=leaky", *SMALL)
    assert cli("train", *own, "cell.rate=0.9", "hydra.run.dir=run").exit_code == 0
    evaluated = cli("eval", "run", f"plugins=[{own_cell}]", "--json")
    assert json.loads(evaluated.stdout)[0]["cell"] == "leaky"
    refused = cli("train", *own, "cell.rate=2")
    assert refused.stderr == "error: cell.rate must be above 0 and at most 1, got 2.0.\n"
    monkeypatch.delitem(CELLS._entries, "leaky")
    stranger = cli("eval", "run")
    assert stranger.exit_code == 2
    assert "If it is your own, name its module: plugins=my_module." in stranger.stderr


def test_an_installed_package_adds_its_cells(cli, own_cell, monkeypatch):
    point = EntryPoint(name="leaky", value=f"{own_cell}:Leaky", group="rnnclf.cells")
    monkeypatch.setattr(setup, "entry_points", lambda group: [point] if group == point.group else [])
    assert "cell=leaky" in cli("list", "cells").output
    assert "rate: 0.5" in cli("train", "cell=leaky", "--cfg", "job").output


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "rnnclf", *words]


def shell(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=90, **options)


@pytest.mark.long
@pytest.mark.parametrize("group", ["cells", "dataset", "optimizers", "schedule", "experiments", "readouts"])
def test_list_and_show_know_every_choice(cli, group):
    choices = json.loads(cli("list", group, "--json").stdout)
    assert choices
    table = cli("list", group).output
    for choice in choices:
        assert choice["word"] in table
        assert choice["summary"]
        shown = cli("show", group, choice["name"])
        assert shown.exit_code == 0
        assert choice["word"] in shown.output
        for option in choice["options"]:
            assert option["help"]


def test_a_cell_is_shown_with_its_equations_and_size(cli):
    shown = cli("show", "cell", "gru").output
    assert "h_t = (1 - z_t) * n_t + z_t * h_{t-1}" in shown
    assert "80,700" in shown
    assert "arxiv.org/abs/1406.1078" in shown


def test_an_unknown_choice_is_refused_with_the_nearest(cli):
    done = cli("show", "cell", "lstn")
    assert (done.exit_code, done.stderr.strip()) == (
        2, "error: No cell named 'lstn'. Did you mean 'lstm'? All: rnnclf list cells.",
    )  # fmt: skip


LONG = ("train", "dataset=digits", "hidden=8", "epochs=100000", "threads=1", "hydra.run.dir=long")


@pytest.mark.long
@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        (signal.SIGINT, 130, "stopped by Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, "stopped by SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, "stopped by SIGHUP", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_says_so_and_keeps_its_checkpoints(tmp_path, sent, code, reason):
    process = subprocess.Popen(
        command(*LONG),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # where tests run in the background, they and all that they start may ignore Ctrl-C or SIGHUP
        preexec_fn=lambda: signal.signal(sent, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "long" / "best.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
    assert "Traceback" not in stderr
    status = json.loads((tmp_path / "long" / "status.json").read_text())
    assert (status["state"], status["error"]) == ("interrupted", reason)
    assert checkpoint.load(tmp_path / "long" / "best.safetensors").header["epoch"] >= 1


@pytest.mark.slow
@pytest.mark.long
def test_two_runs_of_one_second_have_two_folders(tmp_path):
    words = command("train", "dataset=digits", "hidden=4", "epochs=1", "threads=1")
    both = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=90) for process in both] == [0, 0]
    assert len(list((tmp_path / "outputs").glob("*/*/results.json"))) == 2


@pytest.mark.long
def test_a_full_disk_ends_the_run_and_leaves_the_last_good_checkpoint(tmp_path):
    """A limit on the size of files stands in for the disk: the write fails below Python, half done."""

    def tight() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    words = ("train", "dataset=digits", "hidden=64", "epochs=3", "threads=1", "hydra.run.dir=full")
    done = shell(*words, preexec_fn=tight)
    assert done.returncode == 2
    assert re.match(r"error: Cannot write \S+/full/last.safetensors: File too large\.\n$", done.stderr)
    assert not list((tmp_path / "full").glob("*.tmp"))
    assert json.loads((tmp_path / "full" / "status.json").read_text())["state"] == "failed"


@pytest.mark.long
def test_a_full_error_can_be_asked_for(tmp_path):
    environment = {**os.environ, "HYDRA_FULL_ERROR": "1"}
    done = subprocess.run(
        command("train", "hiden=3"), capture_output=True, text=True, env=environment, timeout=60
    )
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show"], "Missing argument 'word'. Usage: "),
        (["eval", "--foo"], "No such option: --foo. Usage: "),
        (["--foo"], "No such option: --foo. Usage: "),
        (["bench", "--hidden", "many"], "Invalid value for '--hidden': "),
        (["list", "cells", "optimizers"], "Got unexpected extra argument(s) (optimizers). Usage: "),
    ],
)
def test_a_wrong_use_of_a_command_is_one_line_with_its_usage(cli, words, message):
    result = cli(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith(" -h\n")
