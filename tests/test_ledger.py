"""Sweeps as ledgers: whatever ends a job or a sweep, `rnnclf resume` does the rest, and only that."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.reliability.kill import differences
from rnnclf.cli import app
from rnnclf.errors import RnnclfError
from rnnclf.hydra_app.compose import assignment, parsed, quoted
from rnnclf.workflows import ledger
from rnnclf.workflows.evaluate import evaluate
from rnnclf.workflows.runs import RunFolder, jobs_of
from rnnclf.workflows.saving import Saver
from rnnclf.workflows.sweep import rank_sweep
from tests.damage import DAMAGE, damaged

SMALL = ("dataset=digits", "hidden=4", "epochs=2", "threads=1")

SPLITS = ("train", "validation", "test")
SLOW = pytest.mark.slow
LAUNCHERS = ("basic", pytest.param("joblib", marks=SLOW), pytest.param("submitit_local", marks=SLOW))

MORTAL = '''
import ctypes, os, signal, time
from dataclasses import dataclass

from rnnclf.cells import GatedCell
from rnnclf.options import option

ENDS = {
    "exit": lambda: os._exit(3),
    "crash": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "slow": lambda: time.sleep(0.02),
    "never": lambda: None,
}


@dataclass
class Mortal(GatedCell):
    """Ends its process in its second epoch, as long as the file `deadly` is there."""

    name: str = "mortal"
    end: str = option("never", "how", choices=tuple(ENDS))
    gates = ("h",)

    def step(self, p, z, h):
        Mortal.steps = getattr(Mortal, "steps", 0) + 1
        if Mortal.steps > 140 and os.path.exists("deadly"):
            ENDS[self.end]()
        h = (z + h @ p.recurrent_weight.t()).tanh()
        return h, h
'''


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "rnnclf", *map(str, words)]


def shell(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, whose jobs have processes of their own, too."""
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=120)


def states(sweep: Path) -> dict[str, str]:
    """What became of each job, by its number."""
    return {run.path.name: run.read_status()["state"] for run in jobs_of(sweep)}


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All files below, with when they were written and what they hold."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def mortal(*words: str, launcher: str = "basic") -> tuple[str, ...]:
    """The words of a sweep over a cell that may end its process."""
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    Path("my_cells.py").write_text(MORTAL)
    Path("deadly").touch()
    own = ("plugins=[my_cells]", "cell=mortal", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep")
    return ("train", "-m", *own, *words, *SMALL)


@pytest.mark.long
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_job_that_dies_leaves_the_others_running_and_resume_does_the_rest(launcher, tmp_path):
    sweep = tmp_path / "sweep"
    words = mortal("cell.end=exit,crash,kill,never", launcher=launcher)
    done = shell(*words)
    assert done.returncode == 1, done.stderr
    assert states(sweep) == {"0": "failed", "1": "failed", "2": "failed", "3": "done"}
    reasons = [
        "exit: failed: its process ended by itself with exit code 3",
        "crash: failed: its process crashed (SIGSEGV)",
        "kill: failed: its process was killed (SIGKILL), perhaps for want of memory",
    ]
    told = re.sub(r"\s+", " ", done.stdout)
    for number, reason in enumerate(reasons):
        assert f"#{number} cell.end={reason} (log: sweep/{number}/train.log)" in told
    assert "1 of 4 jobs done" in told
    assert "my_cells.py" in (sweep / "1" / "train.log").read_text()  # in which line it crashed
    assert "SIGKILL" in (sweep / "2" / "train.log").read_text()

    Path("deadly").unlink()
    before = files_of(sweep / "3")
    resumed = shell("resume", "sweep")
    assert resumed.returncode == 0, resumed.stderr
    assert "going on with 3 of 4 jobs: #0 #1 #2" in resumed.stdout
    assert "4 of 4 jobs done" in resumed.stdout
    assert files_of(sweep / "3") == before
    whole = RunFolder(sweep / "3").read_results()
    for number in "012":  # from their checkpoints of the first epoch, to the same end
        run = RunFolder(sweep / number)
        assert run.read_status()["resumed"] == 1
        assert "Going on after epoch 1." in run.log.read_text()
        assert [run.read_results()[split] for split in SPLITS] == [whole[split] for split in SPLITS]


@SLOW
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_ctrl_c_saves_the_jobs_that_run_and_resume_does_the_rest(launcher, tmp_path):
    sweep = tmp_path / "sweep"
    words = mortal("cell.end=slow", "seed=0,1,2", launcher=launcher)
    if launcher == "joblib":
        words = (*words, "hydra.launcher.n_jobs=2")
    process = started(words)
    wait_for(lambda: (sweep / "0" / "last.safetensors").exists())
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "0 of 3 jobs done" in output
    assert states(sweep)["0"] == "interrupted"
    if launcher == "basic":
        assert states(sweep) == {"0": "interrupted", "1": "waiting", "2": "waiting"}
        assert "#0 seed=0: interrupted: stopped by Ctrl-C" in output
        assert "not begun: #1 #2" in output

    wait_for(lambda: not any(run.busy() for run in jobs_of(sweep)))
    Path("deadly").unlink()
    assert shell("resume", "sweep").returncode == 0
    assert set(states(sweep).values()) == {"done"}
    whole = shell(*(word.replace("sweep.dir=sweep", "sweep.dir=whole") for word in words))
    assert whole.returncode == 0, whole.stderr
    assert [differences(sweep / number, tmp_path / "whole" / number) for number in "012"] == [[], [], []]


def started(words: tuple[str, ...]) -> subprocess.Popen[str]:
    """A command in a process group of its own."""
    return subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@SLOW
def test_a_worker_that_is_killed_costs_nothing(tmp_path):
    """joblib ends all its workers when one dies; what they were at is saved, and launched again."""
    sweep = tmp_path / "sweep"
    process = started(mortal("cell.end=slow", "seed=0,1,2", "hydra.launcher.n_jobs=2", launcher="joblib"))
    wait_for(lambda: (sweep / "0" / "last.safetensors").exists())
    workers = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    by_name = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in workers.stdout.split()}
    os.kill(next(pid for pid, line in by_name.items() if "LokyProcess" in line), signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "the launcher ended before its jobs did: TerminatedWorkerError" in errors
    assert "3 of 3 jobs done" in output


@SLOW
def test_jobs_save_and_end_when_their_sweep_is_killed(tmp_path):
    sweep = tmp_path / "sweep"
    process = started(mortal("cell.end=slow", "seed=0,1"))
    wait_for(lambda: (sweep / "0" / "last.safetensors").exists())
    process.kill()
    process.communicate()
    wait_for(lambda: states(sweep) == {"0": "interrupted", "1": "waiting"}, seconds=10)
    Path("deadly").unlink()
    assert shell("resume", "sweep").returncode == 0
    assert states(sweep) == {"0": "done", "1": "done"}


@SLOW
def test_eight_runs_started_at_once_share_nothing(tmp_path):
    processes = [
        subprocess.Popen(command("train", *SMALL, f"seed={seed}"), stdout=subprocess.DEVNULL)
        for seed in range(8)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0] * 8
    results = list((tmp_path / "outputs").glob("*/*/results.json"))
    assert sorted(json.loads(path.read_text())["seed"] for path in results) == list(range(8))


def test_of_eight_processes_at_once_each_gets_folders_of_its_own(tmp_path):
    script = (
        "import os; from pathlib import Path; from rnnclf.files import claim_folder\n"
        "[os.fork() for _ in range(3)]\n"  # 2^3 processes
        "os.write(1, ''.join(f'{claim_folder(Path())}\\n' for _ in range(25)).encode())\n"
        "try:\n"
        "    while True: os.wait()\n"
        "except ChildProcessError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    claimed = done.stdout.split()
    assert len(claimed) == len(set(claimed)) == 8 * 25


# From here on in one process: what a job's own process adds is tested above.


def train_sweep(cli: Callable[..., Any], *words: str) -> Path:
    cli("train", "-m", "hydra.sweep.dir=sweep", *SMALL, *words)
    return Path("sweep")


@pytest.fixture(scope="session")
def two_jobs_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "sweep"
    words = ["-m", f"hydra.sweep.dir={quoted(str(folder))}", *SMALL, "seed=0,1"]
    assert CliRunner().invoke(app, ["train", *words]).exit_code == 0
    return folder


@pytest.fixture
def two_jobs(two_jobs_once, tmp_path) -> Path:
    """A sweep of two jobs, seed=0,1, both done."""
    shutil.copytree(two_jobs_once, tmp_path / "sweep")
    return Path("sweep")


@pytest.mark.long
def test_a_stopped_sweep_knows_what_never_began_and_ends_as_in_peace(cli, monkeypatch):
    whole = train_sweep(cli, "seed=0,1,2").rename("whole")
    after_epoch = Saver.after_epoch

    def stop(self: Saver, result: Any) -> bool:
        is_best = after_epoch(self, result)
        if self.folder.path.name == "1":
            raise KeyboardInterrupt
        return is_best

    with monkeypatch.context() as patched:
        patched.setattr(Saver, "after_epoch", stop)
        stopped = cli("train", "-m", "hydra.sweep.dir=sweep", *SMALL, "seed=0,1,2")
    sweep = Path("sweep")
    assert stopped.exit_code == 130
    assert states(sweep) == {"0": "done", "1": "interrupted", "2": "waiting"}
    assert "not begun: #2" in stopped.stdout
    assert "1 of 3 jobs done" in stopped.stdout
    assert "go on with it: rnnclf resume sweep" in stopped.stdout

    before = files_of(sweep / "0")
    resumed = cli("resume", "sweep")
    assert resumed.exit_code == 0, resumed.output
    assert "going on with 2 of 3 jobs: #1 #2" in resumed.stdout
    assert files_of(sweep / "0") == before
    assert [differences(sweep / number, whole / number) for number in "012"] == [[], [], []]
    with open(sweep / "sweep.csv") as file:
        assert {row["state"] for row in csv.DictReader(file)} == {"done"}


@pytest.mark.long
def test_a_job_that_fails_again_is_listed_again_and_the_rest_left_alone(cli):
    sweep = train_sweep(cli, "optimizer.lr=1e38,0.01")
    before = files_of(sweep / "1")
    resumed = cli("resume", sweep)
    assert resumed.exit_code == 1
    assert "going on with 1 of 2 jobs: #0" in resumed.stdout
    assert re.search(r"#0 optimizer.lr=1e\+38: failed: The loss became", resumed.stdout)
    assert resumed.stderr.startswith("error: #0 The loss became")
    assert files_of(sweep / "1") == before


@pytest.mark.long
def test_a_failing_batch_leaves_the_later_ones_running(cli):
    sweep = train_sweep(cli, "optimizer.lr=1e38,0.01", "hydra.sweeper.max_batch_size=1")
    assert states(sweep) == {"0": "failed", "1": "done"}


@pytest.mark.long
def test_new_points_get_the_next_numbers_and_old_ones_stay(cli, two_jobs):
    sweep = two_jobs
    (sweep / "1").rename(sweep / "3")  # a gap is not filled: a number is a job's for good
    before = {number: files_of(sweep / number) for number in "03"}
    grown = cli("resume", sweep, "seed=1,2", "cell=basic,gru")
    assert grown.exit_code == 0, grown.output
    assert "3 added: #4 #5 #6" in grown.stdout
    assert "going on with 3 of 5 jobs: #4 #5 #6" in grown.stdout
    new = [parsed(RunFolder(sweep / number).read_status()["overrides"]) for number in "456"]
    points = [(words["cell"], words["seed"], words["hidden"]) for words in new]
    assert sorted(points) == [("basic", 2, 4), ("gru", 1, 4), ("gru", 2, 4)]
    assert {number: files_of(sweep / number) for number in "03"} == before
    again = cli("resume", sweep, "cell=gru,basic", "seed=2,1")  # the same, said in another way
    assert "nothing is left to do" in again.stdout
    assert "5 of 5 jobs done" in again.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hiden=3"], "Did you mean 'hidden'?"),
        (["seed=2,-1"], "no job was started"),
        (["seed=range(0,1000000000000)"], "more than 10,000 jobs"),
    ],
)
def test_a_wrong_point_adds_nothing(cli, two_jobs, words, message):
    before = files_of(two_jobs)
    done = cli("resume", two_jobs, *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert files_of(two_jobs) == before


@pytest.mark.long
def test_an_unknown_launcher_is_told(cli, two_jobs):
    (two_jobs / "1" / "results.json").unlink()
    done = cli("resume", two_jobs, "hydra/launcher=jolib")
    assert done.exit_code == 2
    assert "error: No hydra/launcher named 'jolib'" in done.stderr


@pytest.mark.long
def test_json_tells_of_all_jobs(cli, two_jobs):
    sweep = two_jobs
    (sweep / "1" / "results.json").unlink()
    answer = json.loads(cli("resume", sweep, "--json").stdout)
    assert [(job["job"], job["state"], job["results"]["seed"]) for job in answer["jobs"]] in (
        [(0, "done", 0), (1, "done", 1)],
        [(1, "done", 1), (0, "done", 0)],
    )


def test_what_another_process_works_on_is_left_to_it(cli, two_jobs):
    sweep = two_jobs
    for run in jobs_of(sweep):
        status = json.loads(run.status.read_text())
        run.status.write_text(json.dumps({**status, "state": "running"}))
    assert [row.state for row in rank_sweep(sweep)] == ["lost", "lost"]
    assert [row.error for row in rank_sweep(sweep)] == ["its process ended without a word"] * 2
    with RunFolder(sweep / "0").locked():
        assert [row.state for row in rank_sweep(sweep)] == ["running", "lost"]
        assert [run.path.name for run in ledger.unfinished(sweep)] == ["1"]


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_of_two_that_resume_one_folder_the_second_is_told(cli, two_jobs, kind):
    folder = two_jobs if kind == "sweep" else two_jobs / "0"
    (two_jobs / "0" / "results.json").unlink()
    before = files_of(folder)
    with RunFolder(folder).locked():
        second = cli("resume", folder)
    assert (second.exit_code, second.stderr) == (2, f"error: {folder} is being trained by another process.\n")
    assert files_of(folder) == before


@SLOW
def test_of_two_processes_that_resume_one_run_one_works(tmp_path):
    mortal()
    own = ("plugins=[my_cells]", "cell=mortal", "cell.end=kill", "hydra.run.dir=run")
    assert shell("train", *own, *SMALL).returncode == -signal.SIGKILL
    both = (
        [started(("resume", "run", "epochs=40")) for _ in range(2)] if Path("deadly").unlink() is None else []
    )
    ends = sorted((process.wait(timeout=60), process.communicate()[1]) for process in both)
    assert ends == [(0, ""), (2, "error: run is being trained by another process.\n")]
    assert RunFolder(tmp_path / "run").read_results()["epochs"] == 40


@pytest.mark.long
def test_a_sweep_may_be_read_while_it_is_written(tmp_path):
    """Its checkpoints, its records and its table: never a torn one."""
    process = started(
        ("train", "-m", "hydra.sweep.dir=sweep", *SMALL[:2], "epochs=60", "threads=1", "seed=0,1")
    )
    sweep, seen, looks = tmp_path / "sweep", set(), 0
    try:
        wait_for(lambda: (sweep / "0" / "best.safetensors").exists())
        while process.poll() is None:
            for result in evaluate([sweep], ["threads=1"]):
                seen.add((result.config.seed, result.epoch))
            for run in jobs_of(sweep):
                assert run.read_status()["state"] in ("waiting", "running", "done")
            rank_sweep(sweep)
            looks += 1
    finally:
        process.kill()
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert looks >= 3
    assert len(seen) >= 3  # it changed under our eyes


@pytest.mark.long
def test_a_finished_run_says_so_and_trains_longer_where_asked(cli):
    assert cli("train", *SMALL, "schedule=constant", "hydra.run.dir=run").exit_code == 0
    before = files_of(Path("run"))
    finished = cli("resume", "run")
    assert finished.exit_code == 0, finished.output
    assert re.match(r"run is finished: 2 epochs, test accuracy [\d.]+ %\n", finished.stdout)
    after = {name: file for name, file in files_of(Path("run")).items() if name != ".lock"}
    assert after == {name: file for name, file in before.items() if name != ".lock"}
    longer = json.loads(cli("resume", "run", "epochs=3", "--json").stdout)
    assert longer["epochs"] == 3
    assert longer["folder"] == str(Path("run").absolute())
    assert cli("train", *SMALL, "schedule=constant", "epochs=3", "hydra.run.dir=whole").exit_code == 0
    whole = json.loads(Path("whole/results.json").read_text())
    assert [longer[split] for split in ("train", "validation", "test")] == [
        whole[split] for split in ("train", "validation", "test")
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere does not exist: give a run folder or a sweep folder."),
        (["file"], "file is a file: give a run folder or a sweep folder."),
        (["empty"], "empty is no run folder: it has no status.json."),
        (["run", "hidden=3"], "hidden cannot be changed when a run goes on: only epochs can."),
        (["run", "epochs=many"], "epochs must be a whole number, got 'many'."),
        (["run", "epochs=1,2"], "'epochs=1,2' is not of the form KEY=VALUE."),
    ],
)
def test_what_cannot_be_resumed_is_told_in_a_sentence(cli, words, message):
    Path("file").touch()
    Path("empty").mkdir()
    Path("run").mkdir()
    done = cli("resume", *words)
    assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")


CANARY = {
    "launcher": {"hydra": {"launcher": {"_target_": "os.system", "command": "touch canary"}}},
    "name": {"hydra": {"runtime": {"choices": {"hydra/launcher": "../evil"}}}},
    "callback": {"hydra": {"callbacks": {"evil": {"_target_": "os.system", "command": "touch canary"}}}},
    "words": {
        "hydra": {
            "overrides": {
                "hydra": [
                    "hydra.launcher._target_=os.system", "hydra.job.env_set.X=1",
                    "hydra.launcher.n_jobs=${x:1}", "hydra.launcher.setup=[touch canary]",
                    "hydra.launcher.python=touch canary", 7,
                ],
                "task": ["seed=0", "+hydra.callbacks.evil._target_=os.system"],
            },
            "sweeper": {"_target_": "x.BasicSweeper", "params": {"seed": "${oc.env:HOME}"}},
            "job": {"config_name": "config"},
        },
    },
    "long": {
        "hydra": {
            "sweeper": {"_target_": "x.BasicSweeper"},
            "overrides": {"task": [f"seed={[0] * 10_000}"]},
            "job": {"config_name": "config"},
        },
    },
    "source": {
        "hydra": {
            "sweeper": {"_target_": "x.BasicSweeper"},
            "overrides": {"task": ["seed=0"]},
            "job": {"config_name": "config"},
            "runtime": {"config_sources": [{"provider": ["main"]}]},
        },
    },
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("text", ["", "{", *map(yaml.safe_dump, CANARY.values())])
def test_a_strange_multirun_yaml_runs_nothing_of_its_own(cli, two_jobs, text):
    """The jobs are known from their folders; the launcher is the basic one, and nothing can be added."""
    sweep = two_jobs
    (sweep / "1" / "results.json").unlink()
    (sweep / "multirun.yaml").write_text(text)
    assert ledger.launching(sweep, []) == []
    refused = cli("resume", sweep, "seed=5")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: sweep/multirun.yaml ")
    resumed = cli("resume", sweep)
    assert resumed.exit_code == 0, resumed.output
    assert states(sweep) == {"0": "done", "1": "done"}
    assert not Path("canary").exists()


def test_the_launcher_of_the_sweep_is_taken_again_with_its_limits(tmp_path):
    words = ["hydra.launcher.n_jobs=3", "hydra.launcher.timeout_min=600", "hydra.sweeper.max_batch_size=2"]
    hydra = {"runtime": {"choices": {"hydra/launcher": "joblib"}}, "overrides": {"hydra": words}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    assert ledger.launching(tmp_path, []) == ["hydra/launcher=joblib", *words]
    assert ledger.launching(tmp_path, ["hydra/launcher=basic"]) == ["hydra/launcher=basic"]


WORDS = [*SMALL, "cell=basic,lstm", "seed=range(0,3)"]
RECORDED = yaml.safe_dump(
    {
        "hydra": {
            "sweeper": {
                "_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
                "params": None,
            },
            "overrides": {"task": WORDS, "hydra": ["hydra.launcher.n_jobs=3"]},
            "job": {"config_name": "config"},
            "runtime": {"choices": {"hydra/launcher": "joblib"}, "config_sources": [{"provider": "main"}]},
        }
    }
).encode()


@settings(max_examples=60, deadline=None)
@given(st.tuples(*DAMAGE))
def test_no_damage_to_multirun_yaml_ends_in_a_traceback(tmp_path_factory, damage):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "multirun.yaml").write_bytes(damaged(RECORDED, *damage))
    for word in ledger.launching(folder, []):
        assert re.fullmatch(r"hydra/launcher=\w+|hydra\.launcher\.n_jobs=[\w.:+-]+", word)
    try:
        kept = ledger._other_words(folder, ["seed=7"])
    except RnnclfError:
        return
    assert not [word for word in kept if word.startswith("seed=") or "hydra" in word]


@given(st.text(alphabet="ab '\\/\"$,{}[]=:é", max_size=12).filter(lambda text: "${" not in text))
def test_any_folder_can_be_named_in_hydras_grammar(text):
    assert parsed([f"key={quoted(text)}"]) == {"key": text}
    assert parsed([assignment("key", text)]) == {"key": text}


def test_a_plain_path_is_typed_as_it_is():
    assert assignment("dataset.path", "data/my-table_2.csv") == "dataset.path=data/my-table_2.csv"
