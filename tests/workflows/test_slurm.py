"""Sweeps on a real Slurm of one node: whatever it does to a job, the job ends as one left in peace."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.reliability.kill import differences
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sweep_folder import jobs_of
from tests.conftest import ROOT
from tests.workflows.sweeps import MORTAL, MORTAL_WORDS, command, states, wait_for

HERE = ROOT / "tests" / "slurm"
SMALL = ("hidden=8", "dataset=digits", "threads=1", "device=cpu", "checkpoint.every=2s", "seed=0,1")
FAST = ("cell=basic", "epochs=300", *SMALL)
# Takes minutes as long as the file `deadly` is there, and seconds when it is gone, whatever the machine.
SLOW = (*MORTAL_WORDS, "cell.end=slow", "epochs=120", *SMALL)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))),
        reason="Slurm is not installed: apt-get install slurm-wlm munge",
    ),
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="only root may start Slurm's daemons"
    ),
]


@dataclass
class Cluster:
    """A Slurm that runs two jobs at once."""

    environment: dict[str, str]

    def call(self, *words: str) -> str:
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def started(self, *words: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(*words), env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def running(self) -> list[str]:
        """The jobs that run, as ARRAY_TASK."""
        return self.call("squeue", "--noheader", "--states=RUNNING", "--format=%F_%K").split()

    def is_empty(self) -> bool:
        return not self.call("squeue", "--noheader").strip()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([HERE / "start.sh", folder], check=True, timeout=120)
    environment = {
        **os.environ,
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{HERE / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    yield Cluster(environment)
    subprocess.run([HERE / "stop.sh", folder], check=True, timeout=120)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_cells.py").write_text(MORTAL)


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory) -> Callable[[tuple[str, ...]], Path]:
    """The sweep of these words, trained here and undisturbed."""
    folders: dict[tuple[str, ...], Path] = {}

    def sweep(words: tuple[str, ...]) -> Path:
        if words not in folders:
            folder = folders[words] = tmp_path_factory.mktemp("peace") / "sweep"
            line = command("train", "-m", *words, f"hydra.sweep.dir={folder}")
            subprocess.run(line, check=True, capture_output=True, timeout=600)
        return folders[words]

    return sweep


def epochs_of(run: RunFolder) -> int:
    return len(run.epochs.read_text().splitlines()) - 1 if run.epochs.exists() else 0


def process_of(word: str, sweep: Path, task: str) -> int:
    """The process of a task: the oldest with these two words in its command, of which others are forks."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            variables = (folder / "environ").read_text().split("\0")
        except OSError:  # it has ended
            continue
        ours = word in words and "srun" not in words[0]
        if ours and any(str(sweep) in word for word in words) and f"SLURM_ARRAY_TASK_ID={task}" in variables:
            found.append(int(folder.name))
    return min(found)


def requeue(cluster: Cluster, sweep: Path) -> None:
    cluster.call("scontrol", "requeue", cluster.running()[0])


def warn(cluster: Cluster, sweep: Path) -> None:
    """As Slurm does before the time limit."""
    cluster.call("scancel", "--signal=USR2", cluster.running()[0])


def preempt(cluster: Cluster, sweep: Path) -> None:
    cluster.call("sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 3")


def kill(cluster: Cluster, sweep: Path) -> None:
    os.kill(process_of("submitit.core._submit", sweep, "0"), signal.SIGKILL)


def wait_for_the_limit(cluster: Cluster, sweep: Path) -> None:
    """Slurm looks at its limits twice a minute or so."""
    wait_for(lambda: "Caught signal SIGUSR2" in errors_of(sweep), seconds=180)
    Path("deadly").unlink()


def errors_of(sweep: Path) -> str:
    """What submitit's processes have said in their log."""
    return "".join(path.read_text() for path in sweep.glob(".submitit/*/*_log.err"))


MINUTE = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=20")


@pytest.mark.parametrize(
    ("way", "jobs", "words"),
    [
        pytest.param(requeue, FAST, (), id="requeue"),
        pytest.param(warn, FAST, (), id="SIGUSR2"),
        pytest.param(preempt, FAST, (), id="preemption"),
        pytest.param(kill, FAST, (), id="SIGKILL"),
        pytest.param(wait_for_the_limit, SLOW, MINUTE, id="time limit", marks=pytest.mark.timeout(900)),
    ],
)
def test_an_interrupted_job_goes_on_and_ends_with_the_same_bits(
    way, jobs, words, cluster, in_peace, tmp_path
):
    reference, sweep = in_peace(jobs), tmp_path / "sweep"
    if jobs is SLOW:
        Path("deadly").touch()
    head = cluster.started("train", "-m", "hydra/launcher=slurm", *jobs, f"hydra.sweep.dir={sweep}", *words)
    try:
        wait_for(lambda: epochs_of(RunFolder(sweep / "0")) >= 5, seconds=200)
        way(cluster, sweep)
        output, _ = head.communicate(timeout=600)
    finally:
        head.kill()
    assert head.returncode == 0, output
    assert states(sweep) == {"0": "done", "1": "done"}
    assert "2 of 2 jobs done" in output
    assert [differences(sweep / seed, reference / seed) for seed in "01"] == [[], []]
    assert max(run.read_status().get("resumed", 0) for run in jobs_of(sweep)) >= 1
    wait_for(cluster.is_empty)


def test_workers_in_an_array_go_on_for_each_other(cluster, in_peace, tmp_path):
    """One is put back into the queue, the other is killed; the first does what is left of both jobs."""
    reference, sweep = in_peace(FAST), tmp_path / "sweep"
    words = command("train", "-m", "hydra/launcher=later", *FAST, f"hydra.sweep.dir={sweep}")
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    cluster.call("sbatch", "--array=1-2", "--requeue", f"--wrap={shlex.join(command('work', sweep))}")
    wait_for(lambda: all(epochs_of(run) >= 5 for run in jobs_of(sweep)), seconds=200)
    os.kill(process_of("rnnclf", sweep, "2"), signal.SIGKILL)
    (left,) = (task for task in cluster.running() if task.endswith("_1"))
    cluster.call("scontrol", "requeue", left)
    wait_for(cluster.is_empty, seconds=200)
    assert [(run.state(), run.read_status().get("resumed")) for run in jobs_of(sweep)] == [("done", 1)] * 2
    assert [differences(sweep / seed, reference / seed) for seed in "01"] == [[], []]
