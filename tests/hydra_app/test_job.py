"""Where a job runs, and what is said if its log cannot be kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rnnclf.errors import ConfigError, OutputError
from rnnclf.hydra_app.bridge import run_hydra


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [["hydra.run.dir=out"], pytest.param(["-m", "seed=0,1", "hydra.sweep.dir=out"], marks=pytest.mark.slow)],
)
def test_relative_paths_mean_the_folder_where_the_command_was_typed(tmp_path, words):
    places = []

    def body(config: object, job: object) -> float:
        places.append((Path.cwd(), Path(os.path.abspath(job.folder)).relative_to(tmp_path).parts[0]))
        return 0.0

    outcome = run_hydra(body, [*words, "dataset=digits", "hydra.job.chdir=true"], "rnnclf train")
    assert outcome.error is None
    assert places == [(tmp_path, "out")] * (2 if "-m" in words else 1)


def test_a_log_that_cannot_be_written_is_told():
    words = ["dataset=digits", "hydra.run.dir=out", "hydra.job_logging.handlers.file.filename=/dev/null/log"]
    with pytest.raises(OutputError, match=r"^Cannot write /dev/null/log: /dev/null is a file\.$"):
        run_hydra(lambda config, job: 0.0, words, "rnnclf train")


def test_a_log_whose_configuration_is_wrong_is_told():
    words = ["dataset=digits", "hydra.run.dir=out", "hydra.job_logging.handlers.file.class=nix.Handler"]
    with pytest.raises(ConfigError, match=r"log cannot be configured .*: No module named 'nix'"):
        run_hydra(lambda config, job: 0.0, words, "rnnclf train")
