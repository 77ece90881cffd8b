"""Sweeps on Ray: its own processes on this machine, and a cluster that runs already."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.reliability.kill import differences
from rnnclf.workflows.runs import RunFolder
from tests.conftest import ROOT
from tests.workflows.sweeps import MORTAL_WORDS, SMALL, command, mortal, states, wait_for

pytestmark = pytest.mark.slow
pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="Ray is missing: pip install 'rnnclf[ray]'")

CLUSTER = "ray_cluster"
START = "--head --block --port=0 --node-ip-address=127.0.0.1 --include-dashboard=false --disable-usage-stats"

WITNESS = '''
import os
from dataclasses import dataclass
from pathlib import Path

from rnnclf.cells import GatedCell
from rnnclf.options import option


@dataclass
class Witness(GatedCell):
    """Writes down which GPU its job sees, then waits until all jobs have done so."""

    name: str = "witness"
    of: int = option(1, "jobs", low=1)
    gates = ("h",)

    def step(self, p, z, h):
        Path(f"seen-{os.getpid()}").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        while len([*Path.cwd().glob("seen-*")]) < self.of:
            pass
        h = (z + h @ p.recurrent_weight.t()).tanh()
        return h, h
'''


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The variables for a Ray that has its own folder and token, and sees no other cluster."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: the paths of sockets have a limit
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    yield {**os.environ, "PYTHONPATH": path, "RAY_DEDUP_LOGS": "0", **own}
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(environment) -> Iterator[None]:
    """A cluster of one machine with two CPUs and, as it believes, a GPU."""
    words = [*START.split(), "--num-cpus=2", "--num-gpus=1"]
    head = [sys.executable, "-m", "ray.scripts.scripts", "start", *words]
    log = Path(environment["RAY_TMPDIR"]) / "head.log"
    with open(log, "w") as file:
        process = subprocess.Popen(
            head, cwd="/", env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    wait_for(lambda: "Ray runtime started" in log.read_text() or process.poll() is not None, 300)
    assert process.poll() is None, log.read_text()
    yield
    for pid in processes_of(environment):
        os.kill(pid, signal.SIGKILL)
    process.wait()


def processes_of(environment: dict[str, str]) -> list[int]:
    """The processes of this Ray."""
    mark = f"RAY_TMPDIR={environment['RAY_TMPDIR']}\0".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            found += [int(folder.name)] if mark in (folder / "environ").read_bytes() else []
    return found


def worker_of(job: RunFolder, environment: dict[str, str]) -> int:
    """The worker that runs a job: it has the log open, as has the process that it forked for the job."""
    parents = {}
    for pid in processes_of(environment):
        with suppress(OSError):
            if any(file.resolve() == job.log.resolve() for file in Path(f"/proc/{pid}/fd").iterdir()):
                parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    (worker,) = [pid for pid, parent in parents.items() if parent not in parents]
    return worker


def run(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    line = command(*map(str, words))
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=600)


def alone(folder: str, *words: str) -> Path:
    """A run that nothing disturbs."""
    done = run(dict(os.environ), "train", *SMALL, *words, f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    return Path(folder)


@pytest.mark.parametrize("launcher", ["ray", CLUSTER])
def test_the_jobs_of_a_sweep_equal_single_runs(environment, request, launcher):
    if launcher == CLUSTER:
        request.getfixturevalue("cluster")
    words = ("train", "-m", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep", "seed=0,1", *SMALL)
    done = run(environment, *words)
    assert done.returncode == 0, done.stderr
    assert states(Path("sweep")) == {"0": "done", "1": "done"}
    assert done.stdout.count("sweep folder: sweep") == 1
    assert differences(Path("sweep/1"), alone("alone", "seed=1")) == []


@pytest.mark.usefixtures("cluster")
def test_a_job_whose_worker_is_killed_continues_in_another(environment):
    words = mortal("cell.end=slow", "seed=0,1", launcher=CLUSTER)
    sweep = subprocess.Popen(command(*words), env=environment, stdout=subprocess.PIPE, text=True)
    job = RunFolder(Path("sweep/0"))
    wait_for(lambda: job.last.exists() or sweep.poll() is not None, 300)
    assert sweep.poll() is None
    os.kill(worker_of(job, environment), signal.SIGKILL)
    out, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 0, out
    assert states(Path("sweep")) == {"0": "done", "1": "done"}
    assert job.read_status()["resumed"] == 1
    for number in "01":
        whole = alone(f"alone{number}", *MORTAL_WORDS, "cell.end=slow", f"seed={number}")
        assert differences(Path(f"sweep/{number}"), whole) == []


@pytest.mark.usefixtures("cluster")
def test_a_killed_job_fails_alone_and_resume_does_the_rest(environment):
    done = run(environment, *mortal("cell.end=kill,never", launcher=CLUSTER))
    assert done.returncode == 1, done.stderr
    assert states(Path("sweep")) == {"0": "failed", "1": "done"}
    assert "its process was killed (SIGKILL)" in done.stdout
    Path("deadly").unlink()
    resumed = run(environment, "resume", "sweep")
    assert resumed.returncode == 0, resumed.stderr
    assert "2 of 2 jobs done" in resumed.stdout
    assert RunFolder(Path("sweep/0")).read_status()["resumed"] == 1
    whole = alone("alone", *MORTAL_WORDS, "cell.end=kill")
    assert differences(Path("sweep/0"), whole) == []


@pytest.mark.usefixtures("cluster")
def test_two_jobs_share_a_gpu(environment):
    Path("my_cells.py").write_text(WITNESS)
    words = (
        "plugins=[my_cells]",
        "cell=witness",
        "cell.of=2",
        "engine=loop",
        "seed=0,1",
        "device=cpu",
        *SMALL,
    )
    half = "hydra.launcher.ray.remote.num_gpus=0.5"
    done = run(environment, "train", "-m", f"hydra/launcher={CLUSTER}", half, *words)
    assert done.returncode == 0, done.stderr
    assert [file.read_text() for file in Path.cwd().glob("seen-*")] == ["0", "0"]
