"""What TAB offers after `rnnclf train`; tests/test_shell.py tries it in bash, zsh and fish."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rnnclf.cells.initializers import RECURRENT_INITS
from rnnclf.config import GROUPS
from rnnclf.hydra_app import completion
from rnnclf.hydra_app.completion import complete
from rnnclf.readout import READOUTS

OWN_CELL = '''
print("said by the module when it is imported")

from dataclasses import dataclass

from rnnclf.cells import GatedCell
from rnnclf.options import option


@dataclass
class Leaky(GatedCell):
    """A leaky tanh unit."""

    name: str = "leaky"
    gates = ("h",)
    rate: float = option(0.5, "share of the state that is renewed", above=0, high=1)
    mode: str = option("soft", "a choice", choices=("soft", "hard"))
'''


def found(line: str) -> list[str]:
    """What the last word of `line` may become."""
    *words, incomplete = line.split(" ")
    return complete(words, incomplete)


def choices(group: str, start: str = "") -> list[str]:
    return sorted(f"{group}={name}" for name in GROUPS[group] if name.startswith(start))


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_of_a_group_is_offered(group):
    assert found(f"{group}=") == choices(group)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cell=ls", ["cell=lstm"]),
        ("cell=basic,ls", ["cell=basic,lstm"]),
        ("cell=basic,s", ["cell=basic,s4d", "cell=basic,s5", "cell=basic,slstm", "cell=basic,sru"]),
        ("optimizer=adam,sgd,adamw,", ["optimizer=adam,sgd,adamw,rmsprop"]),
        ("opti", ["optimizer=", "optimizer."]),
        ("experiment=t", ["experiment=tutorial"]),
        ("hidden=50 cell=gru opti", ["optimizer=", "optimizer."]),
        ("-m cell=basic,lstm cell=ls", ["cell=lstm"]),
        ("--json cell=ls", ["cell=lstm"]),
        ("hydra/launcher=b", ["hydra/launcher=basic"]),
        ("hydra/sweeper", ["hydra/sweeper=", "hydra/sweeper=basic"]),
        ("hydra.sweep.s", ["hydra.sweep.subdir="]),
        ("hydra.job.chd", ["hydra.job.chdir=", "hydra.job.chdir=null"]),
        ("++cell=ls", ["++cell=lstm"]),
    ],
)
def test_groups_and_their_choices(line, expected):
    assert found(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cell=lstm cell.f", ["cell.forget_bias=", "cell.forget_bias=1.0"]),
        ("cell.non", ["cell.nonlinearity=", "cell.nonlinearity=tanh", "cell.nonlinearity=relu"]),
        ("experiment=tutorial dataset.sp", ["dataset.split=", "dataset.split_seed="]),
        ("cell=gru cell.non", []),
        ("cell=gru cell=basic cell.nonlinearity=r", ["cell.nonlinearity=relu"]),
        ("seed=interval(0,1) cell=choice(lstm,gru) cell.f", ["cell.forget_bias=", "cell.forget_bias=1.0"]),
        ("hidden=5,6 cell=glob(ls*) cell.f", ["cell.forget_bias=", "cell.forget_bias=1.0"]),
        ("optimizer=sgd optimizer.lr=", ["optimizer.lr=0.1"]),
    ],
)
def test_options_are_those_of_the_component_that_the_line_chooses(line, expected):
    assert found(line) == expected


def test_a_sweep_over_cells_offers_what_all_of_them_have():
    shared = ["cell.hidden_size=", "cell.input_init=", "cell.recurrent_init="]
    assert found("-m cell=basic,lstm cell.") == shared


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("readout", READOUTS),
        ("cell.recurrent_init", RECURRENT_INITS),
        ("device", ("auto", "cpu", "cuda", "mps")),
        ("protocol", ("standard", "tutorial")),
        ("bidirectional", ("true", "false")),
        ("hidden", ("150",)),
        ("clip", ("1.0",)),
        ("plugins", ("[]",)),
    ],
)
def test_values_are_the_choices_of_a_key_or_its_default(key, values):
    assert found(f"{key}=") == [f"{key}={value}" for value in values]


def test_a_list_of_values_leaves_out_those_that_are_there():
    assert found("readout=last,m") == ["readout=last,mean", "readout=last,max"]
    assert found("readout=mean,m") == ["readout=mean,max"]


def test_a_sole_key_comes_with_a_value_so_that_no_space_ends_the_word():
    assert found("hid") == ["hidden=", "hidden=150"]


@pytest.fixture
def files(tmp_path):
    """my.csv, my other.csv, .hidden.csv and a folder, mine/, with a.npz in it."""
    (tmp_path / "mine").mkdir()
    for name in ("my.csv", "my other.csv", ".hidden.csv", "mine/a.npz"):
        (tmp_path / name).touch()


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dataset=table dataset.path=m", ["my other.csv", "my.csv", "mine/"]),
        ("dataset=table dataset.test_path=mi", ["mine/"]),
        ("dataset=arrays dataset.labels=mine/", ["mine/a.npz"]),
        ("dataset=table dataset.path=my.csv,my", ["my.csv,my other.csv"]),
        ("dataset=table dataset.path=./.h", ["./.hidden.csv"]),
        ("dataset=table dataset.path=nope/", []),
        ("dataset.root=mi", ["mine/"]),
        ("hydra.run.dir=mi", ["mine/"]),
        ("hydra.sweep.dir=mi", ["mine/"]),
    ],
)
def test_a_key_that_names_a_file_offers_files(line, expected):
    key = line.split(" ")[-1].partition("=")[0]
    assert sorted(found(line)) == sorted(f"{key}={value}" for value in expected)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("flag", ["--config-dir", "-cd", "-cp"])
def test_a_flag_that_names_a_folder_offers_files(flag):
    assert found(f"{flag} mi") == ["mine/"]
    assert found("--config-name mi") == []


@pytest.mark.parametrize("start", ["", "s", "schema", "schema/c", "+schema"])
def test_the_group_of_types_is_never_offered(start):
    offered = found(start)
    assert not [word for word in offered if "schema" in word]
    assert ("schedule=" in offered) == (start in ("", "s"))


@pytest.mark.long
@pytest.mark.parametrize(
    "line",
    ["nope", "nope=", "nope.", "cell=nope cell.", "cell.nope.", "cell.nope=", "hidden.", "a=b=c", "cell=[",
     ",", "=", ".", "/", "--nope hid", "hidden=[1 cell.", "plugins=[no_such_module] cell=", "-cn nope cell.",
     "experiment=nope cell.", "--config-name "],
)  # fmt: skip
def test_a_line_that_makes_no_sense_gets_nothing(line):
    assert found(line) == []


@pytest.mark.slow
@pytest.mark.long
def test_a_broken_module_of_ones_own_gets_nothing(tmp_path):
    broken = {
        "exits": "raise SystemExit(3)",
        "raises": "1 / 0",
        "is_no_python": "import",
        "is_empty": "x = 1",
    }
    for name, code in broken.items():
        (tmp_path / f"{name}.py").write_text(code)
    lines = [f"plugins=[{name}] cell=" for name in broken]
    assert answers_of([*lines, "cell=ls"]) == [*([] for _ in broken), ["cell=lstm"]]


def test_flags_and_what_follows_them():
    assert found("--m") == ["--multirun"]
    assert found("cell=lstm --js") == ["--json"]
    assert found("--sh") == []  # Hydra's own completion knows no sub-commands
    assert {"-m", "-cd", "--cfg"} <= set(found("-"))
    assert found("--cfg ") == ["job", "hydra", "all"]
    assert found("-i search") == ["searchpath"]


def test_a_folder_of_ones_own_adds_its_choices(tmp_path):
    (tmp_path / "mine" / "cell").mkdir(parents=True)
    (tmp_path / "mine" / "cell" / "large.yaml").write_text("defaults: [lstm]\nhidden_size: 900\n")
    assert found("-cd mine cell=la") == ["cell=large"]
    assert found("--config-dir=mine cell=large cell.f") == ["cell.forget_bias=", "cell.forget_bias=1.0"]
    assert found(f"hydra.searchpath=[file://{tmp_path}/mine] cell=la") == ["cell=large"]


@pytest.mark.parametrize(
    "line", ["", "hid", "cell=ls", "cell=lstm cell.f", "readout=", "optimizer=sgd optimizer."]
)
def test_common_words_do_not_wait_for_a_configuration_to_be_composed(line, monkeypatch):
    expected = found(line)
    monkeypatch.setattr(completion, "compose", None)
    assert expected
    assert found(line) == expected


def test_completing_makes_no_folder(tmp_path):
    for line in ("hydra.run.dir=", "hydra.run.dir.", "hydra.sweep.", "cell.", ""):
        found(line)
    assert list(tmp_path.iterdir()) == []


def answers_of(lines: list[str]) -> list[list[str]]:
    """What a fresh process answers; it must print nothing and load no torch."""
    script = (
        "import json, sys\n"
        "from rnnclf.hydra_app.completion import complete\n"
        "lines = [line.split(' ') for line in json.loads(sys.argv[1])]\n"
        "print(json.dumps([complete(line[:-1], line[-1]) for line in lines]))\n"
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", script, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    answers: list[list[str]] = json.loads(done.stdout)
    return answers


@pytest.mark.long
def test_cells_of_ones_own_are_offered_with_their_options(tmp_path):
    (tmp_path / "my_cells.py").write_text(OWN_CELL)
    lines = ["cell=", "plugins=[my_cells] cell=", "plugins=[my_cells] cell=leaky cell.r",
             "plugins=[my_cells] cell=leaky cell.mode="]  # fmt: skip
    assert answers_of(lines) == [
        choices("cell"),
        sorted([*choices("cell"), "cell=leaky"]),
        ["cell.recurrent_init=", "cell.rate="],
        ["cell.mode=soft", "cell.mode=hard"],
    ]
