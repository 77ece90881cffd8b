"""Which folders a sweep may have, which are its jobs, and what happens if one of them is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.reliability.kill import differences
from rnnclf.errors import ConfigError, OutputError
from rnnclf.hydra_app import load_config
from rnnclf.hydra_app.checks import Planned, plan
from rnnclf.workflows import ledger
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sweep import rank_sweep
from rnnclf.workflows.sweep_folder import jobs_of
from rnnclf.workflows.train import train
from tests.workflows.sweeps import SMALL, files_of, states

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each


@pytest.fixture(scope="module")
def config():
    return load_config([*SMALL])


def planned(config, *folders: str) -> list[Planned]:
    return [Planned([f"seed={seed}"], config, folder) for seed, folder in enumerate(folders)]


# Folders of the user's own choice

GRID = ("cell=basic,gru", "seed=0,1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.sweep.subdir=${cell.name}"], "gives jobs 0 and 1 the same folder, basic"),
        (["hydra.sweep.subdir=same"], "gives jobs 0 and 1 the same folder, same"),
        (["hydra.sweep.subdir='a/../b'"], "gives jobs 0 and 1 the same folder, b"),
        (["hydra.sweep.subdir='${cell.name}/${seed}/../x'"], "gives jobs 0 and 1 the same folder, basic/x"),
        (["hydra.sweep.subdir='${now:%S}-${hydra.job.num}'"], "cannot contain the time"),
        (["hydra.sweep.subdir='${hydra.job.id}'"], "unknown before the jobs start"),
        (["hydra.sweep.dir='out/${cell.name}'"], "hydra.sweep.dir must be the same for all jobs"),
        (["hydra.sweep.subdir='${hydra.job.num}'", "hidden=range(4,4)"], "hidden=range(4,4) gives no values"),
        (["schedule=glob(x*)", "hidden=range(1000000000)"], "schedule=glob(x*) gives no values"),
    ],
)
def test_a_grid_whose_jobs_have_no_folders_of_their_own_is_refused(words, message):
    with pytest.raises(ConfigError) as caught:
        plan([*SMALL, *GRID, *words])
    assert message in str(caught.value)


def test_a_job_folder_inside_another_is_refused():
    with pytest.raises(ConfigError, match="the job folder a/b inside another, a"):
        plan(["dataset=mnist", "dataset.root=a,a/b", "hydra.sweep.subdir='${dataset.root}'"])


@pytest.mark.parametrize(
    "folder", [".", "../x", "/x", "sweep.csv", ".lock", "accuracy.svg/x", "eval", "jobs.json"]
)
def test_a_job_folder_outside_the_sweep_or_named_like_its_files_is_refused(config, tmp_path, folder):
    with (
        pytest.raises(ConfigError, match="gives job 1 the folder"),
        ledger.create_sweep(tmp_path / "sweep", planned(config, "0", folder)),
    ):
        pass
    assert not (tmp_path / "sweep").exists()


def test_a_folder_that_cannot_be_made_leaves_nothing_of_the_sweep(config, tmp_path):
    with (
        pytest.raises(OutputError, match="File name too long"),
        ledger.create_sweep(tmp_path / "a" / "sweep", planned(config, "x/0", "x/1", "y" * 300)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.long
def test_all_commands_see_the_jobs_of_a_sweep_with_folders_of_its_own(cli):
    own = "hydra.sweep.subdir='${hydra.job.override_dirname}'"
    done = cli("train", "-m", "hydra.sweep.dir=sweep", own, *SMALL[:1], "hidden=4", "epochs=1", "threads=1",
               "optimizer.lr=0.01,1e38,0.1")  # fmt: skip
    assert done.exit_code == 1, done.output
    assert "2 of 3 jobs done" in done.stdout
    sweep = Path("sweep")
    names = [
        f"dataset=digits,epochs=1,hidden=4,optimizer.lr={rate},threads=1" for rate in ("0.01", "1e+38", "0.1")
    ]
    assert [run.path for run in jobs_of(sweep)] == [sweep / name for name in names]
    answer = json.loads(cli("inspect", sweep, "--json").stdout)
    assert answer["states"] == {"done": 2, "failed": 1}
    before = {name: files_of(sweep / name) for name in (names[0], names[2])}
    resumed = cli("resume", sweep)
    assert "resuming 1 of 3 jobs: #1" in resumed.stdout
    assert resumed.exit_code == 1
    assert {name: files_of(sweep / name) for name in before} == before
    added = cli("resume", sweep, "optimizer.lr=0.02")
    assert "1 added: #3" in added.stdout
    assert "3 of 4 jobs done" in added.stdout


# Nothing that exists is written over


@pytest.mark.parametrize(
    "there",
    ["0/results.json", "1/notes.txt", "1", "sweep.csv", "accuracy.txt", "status.json", "multirun.yaml"],
)
def test_a_sweep_writes_over_nothing(config, tmp_path, there):
    path = tmp_path / "sweep" / there
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with (
        pytest.raises(OutputError, match="choose another folder"),
        ledger.create_sweep(tmp_path / "sweep", planned(config, "0", "1")),
    ):
        pass
    assert files_of(tmp_path).keys() == {f"sweep/{there}"}
    assert path.read_text() == "mine"


def test_a_sweep_starts_in_a_folder_of_other_things(config, tmp_path):
    for path in (tmp_path / "notes.txt", tmp_path / ".results.json.tmp", tmp_path / ".mine.12.tmp"):
        path.write_text("mine")
    (tmp_path / "0").mkdir()
    (tmp_path / ".sweep.csv.12.tmp").write_text("left by a killed process")
    with ledger.create_sweep(tmp_path, planned(config, "0", "1")):
        assert states(tmp_path) == {"0": "waiting", "1": "waiting"}
    assert (tmp_path / ".results.json.tmp").read_text() == (tmp_path / ".mine.12.tmp").read_text() == "mine"
    assert not (tmp_path / ".sweep.csv.12.tmp").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    "there", ["results.json", "epochs.csv", "train.log", ".hydra/config.yaml", "accuracy.svg"]
)
def test_a_run_in_a_folder_of_the_users_writes_over_nothing(cli, tmp_path, there):
    path = tmp_path / there
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    (tmp_path / ".notes.tmp").write_text("mine")
    done = cli("train", *SMALL, "hydra.run.dir=.")
    assert (done.exit_code, done.stderr) == (2, f"error: {there} exists already: choose another folder.\n")
    assert files_of(tmp_path).keys() == {there, ".notes.tmp"}


def test_the_folder_of_hydras_records_is_not_written_over_either(cli, tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("mine")
    done = cli("train", *SMALL, "hydra.run.dir=.", "hydra.output_subdir=conf")
    assert done.exit_code == 2
    assert "conf/config.yaml exists already" in done.stderr


def test_train_from_python_does_not_write_over_a_run(config, tmp_path, two_jobs):
    before = files_of(two_jobs / "0")
    with pytest.raises(OutputError, match="holds the results of an earlier run: choose another folder"):
        train(config, two_jobs / "0")
    assert files_of(two_jobs / "0") == before


# A start that failed leaves nothing


@pytest.mark.parametrize("word", [None, "hydra.run.dir=a/b", "hydra.run.dir=there", "hydra.run.dir=."])
def test_a_start_that_failed_leaves_no_folder(cli, tmp_path, word):
    (tmp_path / "there").mkdir()
    done = cli("train", "dataset=table", "dataset.path=nowhere.csv", *([word] if word else []))
    assert done.exit_code == 2
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} <= {"there", "outputs"}


def test_a_start_that_failed_in_python_leaves_no_folder(tmp_path):
    config = load_config(["dataset=table", f"dataset.path={tmp_path}/nowhere.csv"])
    for _ in range(2):
        with pytest.raises(Exception, match="does not exist"):
            train(config, tmp_path / "a" / "run")
        assert list(tmp_path.iterdir()) == []


def test_showing_the_configuration_makes_no_folder(cli, tmp_path):
    assert cli("train", "--cfg", "all", "--resolve").exit_code == 0
    assert list(tmp_path.iterdir()) == []


# Jobs that were lost


def test_a_copied_folder_is_no_job(two_jobs):
    shutil.copytree(two_jobs / "0", two_jobs / "3")
    assert {row.job for row in rank_sweep(two_jobs).rows} == {0, 1}


def test_a_lost_folder_and_a_lost_status_are_told(cli, two_jobs):
    shutil.rmtree(two_jobs / "0")
    (two_jobs / "1" / "status.json").unlink()
    assert {row.job: (row.state, row.error) for row in rank_sweep(two_jobs).rows} == {
        0: ("missing", "its folder is gone"),
        1: ("lost", "its process ended without reporting"),
    }
    assert json.loads(cli("inspect", two_jobs, "--json").stdout)["states"] == {"missing": 1, "lost": 1}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "of an older version"])
def test_lost_jobs_are_done_again_under_their_numbers(cli, two_jobs, listed):
    if not listed:
        (two_jobs / "jobs.json").unlink()
    shutil.copytree(two_jobs, "whole")
    shutil.rmtree(two_jobs / "0")
    (two_jobs / "1" / "status.json").unlink()
    (two_jobs / "1" / "last.safetensors").unlink()
    shutil.copytree(Path("whole") / "1", two_jobs / "3")
    resumed = cli("resume", two_jobs)
    assert resumed.exit_code == 0, resumed.output
    assert "resuming 2 of 2 jobs: #0 #1" in resumed.stdout
    assert [differences(two_jobs / number, Path("whole") / number) for number in "01"] == [[], []]


@pytest.mark.long
def test_a_finished_job_that_lost_its_status_is_not_trained_again(cli, two_jobs):
    (two_jobs / "1" / "status.json").unlink()
    before = (two_jobs / "1" / "last.safetensors").read_bytes()
    resumed = cli("resume", two_jobs)
    assert resumed.exit_code == 0, resumed.output
    assert "Resuming after epoch 2." in RunFolder(two_jobs / "1").log.read_text()
    assert (two_jobs / "1" / "last.safetensors").read_bytes() == before


def test_a_damaged_list_of_jobs_costs_nothing(two_jobs):
    for text in ("", "[]", '{"configuration": {}, "jobs": [{"job": 0, "folder": "../x"}]}', "{" * 10**5):
        (two_jobs / "jobs.json").write_text(text)
        assert [run.path.name for run in jobs_of(two_jobs)] == ["0", "1"], text[:60]
