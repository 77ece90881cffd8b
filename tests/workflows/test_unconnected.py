"""A launcher that reaches no cluster loses nothing, and the words for it are never points of the grid."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher

from rnnclf.workflows.sweep_folder import jobs_of
from tests.workflows.sweeps import SMALL

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("unconnected")]

NO_CLUSTER = "Could not find any running instance."


class Unconnected(Launcher):
    """Finds no cluster; `init` is a node of options, as Ray's launcher has one."""

    def __init__(self, init: dict[str, object], error: str = "ConnectionError") -> None:
        self.init, self.error = init, error

    def setup(self, **given: object) -> None:
        pass

    def launch(self, job_overrides: object, initial_job_idx: int) -> Any:
        address = f" Its address: {self.init['address']}." if "address" in self.init else ""
        raise {
            "ConnectionError": ConnectionError(f"{NO_CLUSTER}{address}\nMore about it."),
            "ConnectionRefusedError": ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
            "OSError": OSError("The cluster is gone."),
        }[self.error]


@pytest.fixture
def unconnected(monkeypatch) -> None:
    """Makes hydra/launcher=unconnected known; Hydra takes launchers from packages of its plugins alone."""
    name = "hydra_plugins.unconnected.Unconnected"
    monkeypatch.setitem(Plugins.instance().class_name_to_class, name, Unconnected)
    group = ConfigStore.instance().repo["hydra"]["launcher"]
    monkeypatch.setitem(group, "unconnected.yaml", None)  # removed again after the test
    node = {"_target_": name, "init": {}, "error": "ConnectionError"}
    ConfigStore.instance().store(group="hydra/launcher", name="unconnected", node=node)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["+hydra.launcher.init.address=auto"], f"ConnectionError: {NO_CLUSTER} Its address: auto."),
        (["hydra.launcher.error=ConnectionRefusedError"], "ConnectionRefusedError: [Errno 111] Connection"),
        (["hydra.launcher.error=OSError"], "OSError: The cluster is gone."),
    ],
)
def test_a_launcher_without_a_connection_is_told_and_loses_nothing(cli, tmp_path, words, reason):
    new = ("hydra/launcher=unconnected", "hydra.sweep.dir=sweep", *SMALL, "seed=0,1", *words)
    done = cli("train", "-m", *new)
    assert done.exit_code == 2, done.output
    assert f"error: The launcher ended with 2 jobs to do: {reason}" in " ".join(done.stderr.split())
    assert "0 of 2 jobs done" in done.stdout
    assert "restarting" not in done.output
    assert [run.read_status()["state"] for run in jobs_of(tmp_path / "sweep")] == ["waiting"] * 2


@pytest.mark.parametrize("word", ["+hydra.launcher.init.address=auto", "++hydra.launcher.init.address=auto"])
def test_an_option_that_is_added_to_the_launcher_is_no_point_of_the_grid(cli, two_jobs, word):
    (two_jobs / "1" / "results.json").unlink()
    done = cli("resume", two_jobs, "hydra/launcher=unconnected", word)
    assert done.exit_code == 2
    assert f"{NO_CLUSTER} Its address: auto." in " ".join(done.stderr.split())
    assert len(jobs_of(two_jobs)) == 2


def test_an_option_of_the_launcher_can_be_taken_away(cli, two_jobs):
    (two_jobs / "1" / "results.json").unlink()
    done = cli("resume", two_jobs, "hydra/launcher=unconnected", "~hydra.launcher.error")
    assert done.exit_code == 2
    assert f"1 job to do: ConnectionError: {NO_CLUSTER}" in " ".join(done.stderr.split())
