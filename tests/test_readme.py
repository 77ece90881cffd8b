"""What the README and the pages of docs/ say is true."""

from __future__ import annotations

import csv
import html
import re
import runpy
import shlex
import statistics
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from rnnclf.config import GROUPS, Config
from rnnclf.data.synthetic import Waves, make
from rnnclf.engine.choose import choose
from rnnclf.hydra_app import load_config
from rnnclf.metrics import METRICS
from rnnclf.readout import READOUTS
from rnnclf.workflows.runs import RunFolder
from tests.conftest import ROOT
from tests.export.exporting import needs_onnx

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
OWN_CELLS = (ROOT / "docs" / "own-cells.md").read_text(encoding="utf-8")
PYTHON = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def test_the_readme_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


def test_the_first_command_trains_the_digits():
    assert blocks("bash")[0] == "pip install . && rnnclf train cell=basic hidden=150 dataset=digits\n"


def test_the_last_command_installs_and_tests():
    assert blocks("bash")[-1] == 'pip install -e ".[test]" && pytest\n'


def train_lines() -> list[list[str]]:
    """The words of every `rnnclf train` in a bash block of the README or of docs/, each once."""
    text = "\n".join(block for page in PAGES for block in blocks("bash", page.read_text(encoding="utf-8")))
    found = dict.fromkeys(re.findall(r"rnnclf train ([^|`#\n]*)", text))
    return [shlex.split(line) for line in found]


@pytest.mark.long
@pytest.mark.parametrize("words", train_lines(), ids=" ".join)
def test_every_train_line_composes(words):
    if any("my.csv" in word for word in words):
        make(Path("my.csv"), Waves(sequences=30))
    if any(word.startswith("hydra/launcher=ray") for word in words):
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    one = [
        re.sub(r",.*", "", word)
        for word in words
        if not word.startswith(("-", "plugins", "seeds=", "folds=", "tracker="))
    ]
    own = ("leaky", "cell.rate", "sines")  # those of the plugins, which are tested below
    assert load_config([word for word in one if not any(name in word for name in own)])


def test_every_choice_is_named_in_the_reference():
    names = [*(name for group in GROUPS for name in GROUPS[group]), *READOUTS]
    assert not [name for name in names if f"`{name}`" not in REFERENCE]


def test_every_key_is_named_in_the_reference():
    keys = [option.name for option in fields(Config)]
    assert not [key for key in keys if f"`{key}`" not in REFERENCE and f"`{key}." not in REFERENCE]


def test_every_metric_of_the_reference_is_one_and_has_its_title():
    rows = re.findall(r"^\| ([\w ]+) \| `(\w+)` \|", REFERENCE.partition("## Metrics")[2], flags=re.MULTILINE)
    known = {**{metric.title: metric.key for metric in METRICS}, "log loss": "loss"}
    assert rows
    assert dict(rows).items() <= known.items()


def lines_of_picture(name: str) -> list[str]:
    """The lines of a picture of a terminal, without colours."""
    drawn = re.findall(
        r'<text [^>]*y="([\d.]+)"[^>]*>(.*?)</text>', (ROOT / "docs" / name).read_text(encoding="utf-8")
    )
    lines: dict[str, str] = {}
    for height, text in drawn:
        lines[height] = lines.get(height, "") + html.unescape(text).replace("\xa0", " ")
    return list(lines.values())


@pytest.mark.parametrize("name", ["train.svg", "check.svg"])
def test_the_command_of_a_picture_stands_in_the_block_before_it(name):
    (command,) = (line.removeprefix("$ ").strip() for line in lines_of_picture(name) if line.startswith("$ "))
    before = README.partition(f"(docs/{name})")[0]
    assert command in blocks("bash", before)[-1]
    assert command in runpy.run_path(str(ROOT / "docs" / "pictures.py")).values()


def test_the_picture_of_a_run_and_the_table_agree():
    text = "\n".join(lines_of_picture("train.svg"))
    accuracy, low, high = re.search(
        r"test accuracy ([\d.]+ %) +95 % interval ([\d.]+) – ([\d.]+)", text
    ).groups()
    command = "rnnclf train cell=basic hidden=150 dataset=digits"
    assert f"| `{command}` | {accuracy} [{low}, {high}] on 360 digits |" in README


FILES = ("status", "epochs", "diagnosis", "results", "predictions", "provenance", "best", "last", "previous")


@pytest.mark.parametrize("file", [*FILES, "damaged", "log"])
def test_every_file_of_a_run_is_in_the_reference(file):
    assert f"`{getattr(RunFolder(Path()), file).name}`" in REFERENCE


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_file_of_the_repository_that_a_page_names_exists(page):
    named = re.findall(r"\b(?:rnnclf|tests|benchmarks|conf)/[\w/]+\.\w+", page.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_page_holds_a_placeholder(page):
    assert not re.search(
        r"^(?:[A-Z]{3,}|TODO.*|\{\{.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "line", "shown"),
    [("my_cells", "cell=leaky", "leaky 8; "), ("my_data", "dataset=sines", "sines 210/30/60")],
)
def test_the_modules_in_the_docs_train_by_the_lines_below_them(tmp_path, module, line, shown):
    marker = line.partition("=")[2]
    code = next(block for block in blocks("python", OWN_CELLS) if f'"{marker}"' in block)
    (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
    words = next(words for words in train_lines() if line in words)
    command = [sys.executable, "-m", "rnnclf", "train", *words, "hidden=8", "epochs=1", "threads=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


PYTHON_BLOCKS = [*blocks("python"), *blocks("python", PYTHON)]


@pytest.mark.long
@pytest.mark.parametrize("code", PYTHON_BLOCKS, ids=range(len(PYTHON_BLOCKS)))
def test_the_python_in_the_docs_runs_as_pasted(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs", "exec"), {})


def test_ci_runs_the_test_command_of_the_readme_and_what_that_leaves_out():
    ci = (ROOT / ".ci" / "run").read_text()
    pattern = re.search(r"grep -m 1 '(.*)' README.md", ci)
    assert pattern is not None
    found = re.search(f"{pattern[1]}.*", README, flags=re.MULTILINE)
    assert found
    assert f"{found[0]}\n" == blocks("bash")[-1]
    assert ci.endswith('\neval "$test_command"\npytest -m "long and not slow"\n')
    (markers,) = re.findall(
        "-m '(.*?)'",
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["addopts"],
    )
    assert markers == "not slow and not long"


def test_contributing_lists_the_commands_of_ci():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.search(r"```bash\n(.*?)```", page, flags=re.DOTALL)[1].splitlines()
    commands = [re.split(r"\s{2,}#", line)[0] for line in lines]
    assert commands == [
        blocks("bash")[-1].strip(),
        "ruff check . && ruff format --check . && mypy",
        'pytest -m "long and not slow"',
        "pytest -m slow",
    ]


LINKED = [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))]


@pytest.mark.parametrize("page", LINKED, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", text):
        there = page.parent / target if target else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}


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


def test_the_table_of_exported_cells_is_what_its_raw_figures_say():
    needs_onnx()
    text = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "benchmarks" / "export" / "cells.py"))["page"](text) == text
    assert all(f"| `{name}` |" in text for name in GROUPS["cell"].names())


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
