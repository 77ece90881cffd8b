"""The house stands as it was drawn: floors, torch-free commands, one YAML file a choice."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

from rnnclf.config import GROUPS
from rnnclf.hydra_app import load_config
from tests.conftest import ROOT
from tests.imports import command, modules_after

PACKAGE = ROOT / "rnnclf"

FLOORS = {
    "errors": 0, "registry": 0, "options": 0, "durations": 0,
    "files": 0, "escaping": 0, "docstrings": 0, "system": 0,
    "cells": 1, "engine": 1, "readout": 1, "stack": 1, "sizing": 1, "model": 1, "conformance": 1,
    "warping": 1,
    "data": 1, "augment": 1, "averaging": 1, "optim": 1, "training": 1, "metrics": 1, "checkpoint": 1,
    "calibration": 1, "diagnosis": 1, "expectation": 1, "baselines": 1, "statistics": 1, "export": 1,
    "report": 1, "trackers": 1, "tuning": 1,
    "config": 2, "config_reading": 2, "synonyms": 2, "hydra_app": 2,
    "workflows": 3,
    "cli": 4, "after_training": 4, "many_machines": 4, "deciding": 4,
    "reporting": 4, "data_commands": 4, "groups": 4,
    "shell": 4, "console": 4, "__main__": 4,
    "__init__": 5, "estimator": 5,
}  # fmt: skip

MODULES = sorted(PACKAGE.rglob("*.py"))


def is_module(name: str) -> bool:
    place = ROOT / Path(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def floor_of(module: str) -> int:
    parts = module.split(".")
    return FLOORS[parts[1] if len(parts) > 1 else "__init__"]


def modules_in(code: ast.AST) -> list[str]:
    """The modules that code imports, also those named behind `from package import`."""
    found = []
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found.append(str(node.module))
            found += [f"{node.module}.{name.name}" for name in node.names]
    return [name for name in found if not name.startswith("rnnclf.") or is_module(name)]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path) -> list[str]:
    return modules_in(tree_of(path))


def own_floor(path: Path) -> int:
    return FLOORS[path.relative_to(PACKAGE).parts[0].removesuffix(".py")]


@pytest.mark.parametrize(
    "line",
    [
        "from rnnclf import cli",
        "import rnnclf.cli",
        "from rnnclf.cli import app",
        "from rnnclf import a, cli",
    ],
)
def test_an_import_from_above_is_seen_however_it_is_written(line):
    modules = set(modules_in(ast.parse(line))) - {"rnnclf"}
    assert max(map(floor_of, modules)) == FLOORS["cli"]


def test_a_name_that_is_no_module_belongs_to_its_package():
    assert modules_in(ast.parse("from rnnclf import __version__")) == ["rnnclf"]


def label(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_each_file_imports_from_its_own_floor_or_below():
    for path in MODULES:
        for module in imports_of(path):
            if module.split(".")[0] == "rnnclf" and module != "rnnclf":
                assert floor_of(module) <= own_floor(path), f"{label(path)} imports {module}"


def test_each_library_stays_in_its_room():
    for path in MODULES:
        libraries = {module.split(".")[0] for module in imports_of(path)}
        if own_floor(path) < 4:
            assert not libraries & {"typer", "rich"}, label(path)
        if "hydra_app" not in path.parts:
            assert "hydra" not in libraries, label(path)
        if own_floor(path) != 2:
            assert "omegaconf" not in libraries, label(path)


def test_contributing_says_what_every_place_of_the_package_is_and_its_floor():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (\d) \| `(\w+)(?:\.py|/)` \| \S", page, flags=re.MULTILINE)
    assert {place: int(floor) for floor, place in rows} == FLOORS
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders | {path.stem for path in PACKAGE.glob("*.py")} == set(FLOORS)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def runtime_imports(code: ast.AST) -> set[str]:
    """The modules that code imports when it runs, at its top or inside a function; not those for types."""
    found = set()
    for node in ast.iter_child_nodes(code):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                full = f"{node.module}.{name.name}"
                found.add(full if is_module(full) else str(node.module))
        found |= runtime_imports(node)
    return {name for name in found if name.startswith("rnnclf")}


def test_no_files_import_each_other_in_a_circle():
    graph = {module_of(path): runtime_imports(tree_of(path)) for path in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which lists the circle


def test_no_file_is_longer_than_450_lines():
    files = [*MODULES, *(ROOT / "tests").rglob("*.py")]
    assert not [path for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 450]


def test_only_the_console_prints():
    for path in MODULES:
        if "console" not in path.parts:
            calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
            names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
            assert "print" not in names, label(path)


@pytest.mark.long
@pytest.mark.parametrize(
    "words", [["--help"], ["eval", "--help"], ["resume", "--help"], ["list"], ["show", "cell", "lstm"]]
)
def test_help_and_catalog_do_without_torch(words):
    loaded = modules_after(command(words, exit_code=0))
    assert "torch" not in loaded
    if words[-1] == "--help":
        assert "hydra" not in loaded


@pytest.mark.long
def test_a_wrong_key_is_told_without_waiting_for_torch():
    assert "torch" not in modules_after(command(["train", "hiden=3"], exit_code=2))


@pytest.mark.long
def test_a_training_run_imports_nothing_heavy_that_it_does_not_use(tmp_path):
    words = ["train", "dataset=digits", "hidden=4", "epochs=1", "threads=1", f"hydra.run.dir={tmp_path}/run"]
    loaded = modules_after(command(words, exit_code=0))  # polars among them, which writes the predictions
    assert "torch" in loaded
    heavy = {"torchvision", "sklearn", "scipy.stats", "pandas", "joblib", "sympy", "torch._dynamo"}
    heavy |= {"altair", "vl_convert", "jinja2", "tensorboard", "mlflow", "wandb", "trackio"}
    assert not heavy & loaded


@pytest.mark.long
def test_what_launches_a_sweep_and_what_ranks_and_compares_runs_does_without_torch():
    """The processes of a parallel launcher would wait for it."""
    ranking = "rnnclf.console.sweep, rnnclf.console.compare, rnnclf.console.board, rnnclf.console.ensemble"
    launching = "rnnclf.hydra_app.bridge, rnnclf.workflows.jobs, rnnclf.workflows.ledger"
    code = f"import rnnclf.cli, {launching}, {ranking}"
    assert not {"torch", "scipy.stats"} & modules_after(code)


@pytest.mark.long
def test_the_jobs_of_a_sweep_find_torch_imported():
    """They are forks: without it each of them would import it again."""
    code = """
from pathlib import Path
from rnnclf.workflows import jobs, ledger
ledger.in_subprocess = lambda job, work: float("torch" in sys.modules)
assert jobs._in_subprocess(jobs.JobsWatcher(), jobs.Job(Path('0'), [], 0, False), None) == 1
"""
    assert "torch" in modules_after(code)


def test_a_command_ends_without_a_search_for_cycles():
    code = "import atexit, gc\natexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"
    script = f"{code}import rnnclf.cli"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True"]


@pytest.mark.parametrize("group", GROUPS)
def test_each_choice_has_one_yaml_file(group):
    files = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
    assert files == set(GROUPS[group].names())


@pytest.mark.long
@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_each_experiment_composes(path):
    config = load_config([f"experiment={path.stem}"])
    for key, value in yaml.safe_load(path.read_text()).items():
        if key not in ("defaults", "expected") and not isinstance(value, dict):
            assert getattr(config, key) == value


def test_no_configuration_names_code_to_run():
    """`_target_` is Hydra's way to run what a file names; ours are one callback and one launcher."""
    ours = "rnnclf.hydra_app.checks.Checks", "hydra_plugins.rnnclf.Later"
    for path in (ROOT / "conf").rglob("*.yaml"):
        targets = [line.strip() for line in path.read_text().splitlines() if "_target_" in line]
        assert targets in ([], *([f"_target_: {name}"] for name in ours)), path
