"""The words that stand for runs wherever one is named: `latest`, and the names that `name=` gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rnnclf.config import Config
from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.files import claim_folder
from rnnclf.hydra_app import load_config
from rnnclf.hydra_app.words import prepared
from rnnclf.workflows.board import leaderboard
from rnnclf.workflows.jobs import with_init
from rnnclf.workflows.places import names_below, run_named
from tests.cli_runs import SMALL
from tests.workflows.finished_runs import finished_run, share
from tests.workflows.test_listing import DAY, run_at, sweep_at


def named(word: str) -> tuple[str, list[str]]:
    notes: list[str] = []
    return str(run_named(Path(word), notes.append)), notes


@pytest.fixture
def three(tmp_path) -> None:
    """Two runs of one name, and a sweep that began between them."""
    run_at(f"{DAY}/10-00-00_try", 0, name="try")
    sweep_at(f"{DAY}/10-01-00", 1)
    run_at("outputs/moved", 2, name="try")


@pytest.mark.usefixtures("three")
def test_latest_is_the_newest_and_a_name_the_newest_of_that_name():
    assert named("latest") == ("outputs/moved", ["latest is the run outputs/moved"])
    assert named("try") == ("outputs/moved", ["try is the run outputs/moved, the newest of 2 with this name"])
    sweep_at(f"{DAY}/10-03-00", 3)
    run_at(f"{DAY}/10-04-00-dtw", 4)
    (Path(DAY) / "10-04-00-dtw" / "status.json").write_text('{"state": "done", "baseline": "dtw"}')
    (Path(DAY) / "10-05-00").mkdir()
    (Path(DAY) / "10-05-00" / "evaluation.json").write_text("[]")
    assert named("latest/0")[0] == f"{DAY}/10-03-00/0"
    assert names_below() == ["latest", "try"]


@pytest.mark.usefixtures("three")
def test_a_path_wins_and_an_unknown_word_is_left_to_the_command():
    for word in ("latest", "try"):
        Path(word).touch()
        assert named(word) == (word, [])
    for word in ("nothing", "new.csv", "try.csv/x", "", "a b", "\x1b[31m"):
        assert named(word) == (str(Path(word)), [])


@pytest.mark.usefixtures("three")
def test_a_word_that_is_nearly_a_name_is_told():
    for word, meant in (("lates", "latest"), ("tryy", "try")):
        with pytest.raises(CheckpointError, match=f"{word} is neither .* Did you mean '{meant}'"):
            named(word)


def test_without_runs_latest_stands_for_nothing(cli, tmp_path):
    done = cli("inspect", "latest")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: There is no run below outputs yet: latest stands for the newest one.\n"
    assert named("tryy") == ("tryy", [])


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    "words",
    [
        "inspect try",
        "report try",
        "board try",
        "compare try",
        "runs try",
        "resume try",
        "eval try",
        "export try",
        "stream try",
    ],
)
def test_every_command_that_takes_a_run_takes_a_name(cli, words):
    done = cli(*words.split())
    assert done.stderr.startswith("try is the run outputs/moved, the newest of 2 with this name\n")
    assert "try does not exist" not in done.output


@pytest.mark.usefixtures("three")
def test_predict_takes_a_name_for_its_runs_alone(cli):
    done = cli("predict", "try", "latest", "nowhere.csv")
    assert done.stderr.splitlines()[:2] == [
        "try is the run outputs/moved, the newest of 2 with this name",
        "latest is the run outputs/moved",
    ]


@pytest.mark.usefixtures("three")
def test_init_holds_the_path_so_that_a_later_run_does_not_change_it():
    notes: list[str] = []
    words = ["cell=gru", "init=latest,try,null,elsewhere", "init='try'", "init=null"]
    path = Path("outputs/moved").absolute()  # as in the words of points that are added to a sweep
    found = ["cell=gru", f"init={path},{path},null,elsewhere", f"init={path}", "init=null"]
    assert with_init(words, notes.append) == found
    assert len(notes) == 3


def test_a_name_decides_no_outcome_and_is_part_of_the_folder(tmp_path):
    config = load_config([*SMALL, "name=größe-1.b"])
    assert (config.name, config.digest()) == ("größe-1.b", replace(config, name=None).digest())
    folders = [claim_folder(tmp_path, "%Y", name="try").name for _ in range(2)]
    first = claim_folder(tmp_path, "%Y").name
    assert folders == [f"{first}_try", f"{first}-2_try"]


def test_runs_that_differ_in_their_name_alone_are_one_configuration(tmp_path):
    for seed, name in enumerate(("one", "two")):
        finished_run(tmp_path / name, share(0.8), seed=seed, name=name, predictions=False)
    (section,) = leaderboard(tmp_path).sections
    assert [len(contender.runs) for contender in section.contenders] == [2]


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".hidden", "-x", "a b", "a,b", "", "x" * 61, "a\n", "latest", "${cell}"]
)
def test_a_name_that_would_do_harm_in_a_path_is_refused(name):
    with pytest.raises(ConfigError, match=r"^name (must be at most 60 letters|cannot be latest)"):
        Config(name=name)


def test_a_sweep_has_one_name():
    assert prepared(["name=a,b"], sweep=True).words == ["name='a,b'"]  # which is refused


@pytest.mark.long
def test_a_named_run_and_a_named_sweep_are_found_by_their_names(cli, tmp_path):
    assert cli("train", *SMALL, "epochs=1", "name=one").exit_code == 0
    done = cli("train", "-m", *SMALL, "epochs=1", "name=two", "seed=0", "init=latest")
    assert done.exit_code == 0, done.output
    one, two = sorted(Path("outputs").glob("*/*"))
    assert (one.name.partition("_")[2], two.name.partition("_")[2]) == ("one", "two")
    assert (named("one")[0], named("two")[0], named("latest")[0]) == (str(one), str(two), str(two))
