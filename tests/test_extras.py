"""The extras, alone and together, are sets of packages that pip can install."""

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


@pytest.mark.parametrize(
    "extras", [("ray",), ("launchers", "ray"), tuple(set(EXTRAS) - {"ray"}), tuple(EXTRAS)], ids=",".join
)
def test_pip_finds_versions_of_these_extras_that_go_together(extras, tmp_path):
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    line = [*pip, f"--report={report}", f"{ROOT}[{','.join(extras)}]"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    chosen = {plain(package["metadata"]["name"]) for package in json.loads(report.read_text())["install"]}
    wanted = [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    assert {plain(re.split("[^A-Za-z0-9._-]", line)[0]) for line in wanted} <= chosen


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
