"""All extras together are a set of packages that pip can install."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = sorted(PROJECT["optional-dependencies"].keys() - {"test"})


@pytest.mark.timeout(1800)  # pip downloads each wheel that it considers, those of CUDA among them
def test_pip_finds_versions_of_all_extras_that_go_together(tmp_path):
    """Then it finds versions for each of them, and for any two."""
    report = tmp_path / "report.json"
    # Building would take longest. Hydra needs a version of antlr4 that has no wheel, and is small.
    wheels = ["--only-binary=:all:", "--no-binary=antlr4-python3-runtime"]
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", *wheels]
    line = [*pip, f"--report={report}", f"{ROOT}[{','.join(EXTRAS)}]"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    chosen = {plain(package["metadata"]["name"]) for package in json.loads(report.read_text())["install"]}
    wanted = [line for extra in EXTRAS for line in PROJECT["optional-dependencies"][extra]]
    assert {plain(re.split("[^A-Za-z0-9._-]", line)[0]) for line in wanted} <= chosen


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
