"""What the README says is true."""

from __future__ import annotations

import csv
import re
import runpy
import shlex
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rnnclf.config import GROUPS
from rnnclf.engine.choose import choose
from rnnclf.hydra_app import load_config
from rnnclf.readout import READOUTS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_first_command_trains_the_digits():
    assert blocks("bash")[0] == "pip install . && rnnclf train cell=basic hidden=150 dataset=digits\n"


def test_the_last_command_installs_and_tests():
    assert blocks("bash")[-1] == 'pip install -e ".[test]" && pytest -m "not slow"\n'


def train_lines() -> list[list[str]]:
    found = re.findall(r"rnnclf train ([^|`#\n]*)", "\n".join(blocks("bash")))
    return [shlex.split(line) for line in found]


@pytest.mark.parametrize("words", train_lines(), ids=" ".join)
def test_every_train_line_composes(words):
    one = [re.sub(r",.*", "", word) for word in words if not word.startswith(("-", "plugins"))]
    assert load_config([word for word in one if "leaky" not in word and "rate" not in word])


@pytest.mark.parametrize("name", [*(name for group in GROUPS for name in GROUPS[group]), *READOUTS])
def test_every_choice_is_named(name):
    assert f"`{name}`" in README


@pytest.mark.long
def test_the_cell_in_the_readme_trains_by_the_line_below_it(tmp_path):
    cell = next(block for block in blocks("python") if "class Leaky" in block)
    (tmp_path / "my_cells.py").write_text(cell)
    line = next(line for line in train_lines() if "cell=leaky" in line)
    words = [sys.executable, "-m", "rnnclf", "train", *line, "hidden=8", "epochs=1", "threads=1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "leaky 8; " in done.stdout


@pytest.mark.long
def test_the_python_in_the_readme_runs(tmp_path, capsys):
    code = next(block for block in blocks("python") if "load_config" in block)
    exec(compile(code, "README.md", "exec"), {"folder": tmp_path})
    accuracy, low, high = map(float, re.findall(r"0\.\d+", capsys.readouterr().out))
    assert low < accuracy < high


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_link_leads_somewhere(target):
    assert (ROOT / target).exists()


def test_ci_runs_the_test_command_of_the_readme():
    pattern = re.search(r"grep -m 1 '(.*)' README.md", (ROOT / ".ci" / "run").read_text())
    assert pattern is not None
    assert re.search(pattern[1].replace("\\[", r"\[").replace("\\]", r"\]"), README, flags=re.MULTILINE)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_every_link_of_the_docs_leads_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_figures_of_the_tutorial_page_are_those_of_its_run():
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    with open(ROOT / "benchmarks" / "tutorial" / "epochs.csv") as file:
        ours = [float(row["test_accuracy"]) for row in csv.DictReader(file)]
    late = ours[50:]
    figures = (statistics.mean(late), statistics.stdev(late), ours[-1], max(ours))
    mean, spread, last, best = (f"{100 * figure:.2f}" for figure in figures)
    assert f"| `rnnclf train experiment=tutorial` | {mean} % | {spread} | {last} % | {best} % |" in page
    assert f"{mean} % over the last 50 epochs" in README
    for epoch, accuracy in re.findall(r"^\| (\d+) \| (0\.\d{4}) \|", page, flags=re.MULTILINE):
        assert f"{ours[int(epoch) - 1]:.4f}" == accuracy


CELLS_PAGE = ROOT / "benchmarks" / "cells" / "page.py"


def test_the_page_of_the_cells_is_what_its_raw_figures_say():
    assert runpy.run_path(str(CELLS_PAGE))["page"]() == (ROOT / "docs" / "cells.md").read_text(
        encoding="utf-8"
    )


def test_every_cell_was_measured_with_each_seed_and_learning_rate():
    with open(ROOT / "benchmarks" / "cells" / "results.csv") as file:
        runs = Counter(row["cell"] for row in csv.DictReader(file))
    assert runs == dict.fromkeys(GROUPS["cell"].names(), 6)


def test_auto_took_an_engine_within_a_tenth_of_the_fastest_wherever_it_was_measured():
    with open(ROOT / "benchmarks" / "engines" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    seconds = {
        (row["cell"], row["readout"], row["steps"], row["batch"], row["engine"]): float(row["seconds"])
        for row in rows
        if row["engine"] != "auto" and row["seconds"] != "nan"
    }
    for cell, readout, steps, batch in {key[:4] for key in seconds}:
        taken = choose(GROUPS["cell"][cell](), "cpu", READOUTS[readout].every_step)
        times = {key[4]: value for key, value in seconds.items() if key[:4] == (cell, readout, steps, batch)}
        assert times[taken] <= 1.1 * min(times.values()), (cell, readout, steps, batch)
