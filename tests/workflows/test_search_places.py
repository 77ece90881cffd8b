"""A search in the commands that look at runs: it is one entry, and its best settings stand for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.hydra_app.search_words import searched
from rnnclf.tuning.space import Choice, Real, Whole, range_word
from rnnclf.workflows.board import leaderboard
from rnnclf.workflows.checkpoints import checkpoints_in, only_checkpoint
from rnnclf.workflows.compare import compare
from rnnclf.workflows.contenders import find_runs
from rnnclf.workflows.inspect import SearchFacts, inspect
from rnnclf.workflows.listing import list_runs
from rnnclf.workflows.loading import one_checkpoint
from rnnclf.workflows.places import names_below, run_named
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.search.record import read_search
from rnnclf.workflows.search.standing import runs_of_search, what_stands
from tests.workflows.finished_runs import finished_run, rewrite, share
from tests.workflows.finished_searches import SPACE, TRIED, Tried, begun, damaged, search_of

HUNT = Path("outputs/hunt")
SMALL = {"cell.nonlinearity": Choice(("tanh", "relu"))}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def paths_of(folder: Path) -> list[Path]:
    return [run.path for run in runs_of_search(folder)]


def test_the_best_settings_with_other_seeds_stand_for_a_search():
    search_of(HUNT, *TRIED, seeds=(1, 2, 3))
    winner = HUNT / "best-1"
    assert paths_of(HUNT) == [winner / "0", winner / "1", winner / "2"]
    assert [*what_stands([HUNT, winner])] == [
        "Of the search outputs/hunt, the best settings with other seeds are taken: 3 runs in"
        " outputs/hunt/best-1."
    ]


@pytest.mark.parametrize("seeds", [(), (1,)])
def test_without_a_finished_one_the_best_trial_does(seeds):
    search_of(HUNT, *TRIED, seeds=seeds)
    for seed in seeds:
        rewrite(HUNT / "best-1" / str(seed - 1) / "status.json", state="interrupted")
    assert paths_of(HUNT) == [HUNT / "1"]
    assert [*what_stands([HUNT])] == ["Of the search outputs/hunt, its best trial is taken: outputs/hunt/1."]


@pytest.mark.parametrize("tried", [(), (Tried((0.9,), "interrupted"), Tried((0.3,), "pruned"))])
def test_before_a_trial_is_done_there_is_nothing_to_score(tried):
    search_of(HUNT, *tried, trials=9)
    with pytest.raises(CheckpointError, match="no trial is done: rnnclf resume outputs/hunt"):
        checkpoints_in(HUNT)
    assert not find_runs([HUNT]).runs
    assert not leaderboard(Path("outputs")).sections
    with pytest.raises(ConfigError, match="outputs/hunt holds no finished run"):
        compare([HUNT, HUNT])


def test_the_only_model_of_a_search_needs_no_name_and_one_of_several_does():
    search_of(HUNT, *TRIED)
    (HUNT / "1" / "best.safetensors").touch()
    assert only_checkpoint(HUNT) == one_checkpoint(HUNT) == HUNT / "1" / "best.safetensors"
    search_of(Path("other"), *TRIED, seeds=(1, 2))
    with pytest.raises(
        CheckpointError, match=r"trained 2 times: give the folder of one of .* other/best-1/0"
    ):
        one_checkpoint(Path("other"))


def test_the_trials_of_a_search_do_not_flood_the_leaderboard():
    search_of(HUNT, *TRIED, seeds=(1, 2, 3))
    finished_run(Path("outputs/own"), share(0.7), validation=0.7, hidden=99)
    (section,) = leaderboard(Path("outputs")).sections
    runs = [[run.folder.path for run in each.runs.values()] for each in section.contenders]
    assert runs == [[HUNT / "best-1" / str(n) for n in range(3)], [Path("outputs/own")]]


def test_a_search_is_compared_by_its_best_settings():
    search_of(HUNT, *TRIED, seeds=(1, 2, 3))
    for seed in (1, 2, 3):
        finished_run(Path(f"own/{seed}"), share(0.7), validation=0.7, seed=seed, hidden=99)
    found = compare([HUNT, Path("own")])
    (pair,) = found.sections[0].pairs
    assert (pair.runs, round(pair.difference, 6)) == ((3, 3), 0.15)
    assert "the best settings with other seeds are taken" in found.notes[0]


def test_a_search_is_one_entry_of_the_list():
    search_of(HUNT, *TRIED, seeds=(1, 2))
    (listed,) = list_runs(Path("outputs"))
    assert (listed.kind, listed.state, listed.name) == ("search", "done", "hunt")
    assert (listed.split, listed.accuracy) == ("validation", 0.9)
    assert dict(listed.jobs) == {"done": 2, "pruned": 1, "failed": 1}
    assert " ".join(listed.words) == (
        "tune dataset=digits optimizer.lr=tag(log,interval(1e-4,0.1)) hidden=range(8,33,4)"
        " cell.nonlinearity=tanh,relu"
    )


@pytest.mark.parametrize(
    ("tried", "changes", "state"),
    [
        ((), {"trials": 3}, "interrupted"),
        (TRIED, {"trials": 9}, "interrupted"),
        (TRIED, {"asked": 2}, "interrupted"),  # the best was not trained with them
        ((*TRIED, Tried((0.1,), "interrupted")), {}, "interrupted"),
        ((*TRIED, Tried((0.1,), "interrupted")), {"trials": None, "budget": "1s"}, "done"),
        ((Tried((), "failed", "x"),), {}, "failed"),
        (TRIED[:2], {"space": SMALL, "trials": 9}, "done"),  # nothing is left to try
    ],
)
def test_how_a_search_stands_is_told(tried, changes, state):
    search_of(HUNT, *tried, **changes)
    assert list_runs(HUNT)[0].state == state


def test_it_runs_while_a_process_holds_it_one_of_its_trials_or_a_seed_of_the_best():
    search_of(HUNT, *TRIED, seeds=(1,))
    rewrite(HUNT / "2" / "status.json", state="running")
    for path in (HUNT, HUNT / "best-1" / "0"):
        assert list_runs(HUNT)[0].state == "done"
        with RunFolder(path).locked():
            assert list_runs(HUNT)[0].state == "running"


def test_a_search_has_a_name_from_its_beginning():
    begun(HUNT)
    assert names_below() == ["latest", "hunt"]
    notes: list[str] = []
    assert run_named(Path("hunt/best-1"), notes.append) == HUNT / "best-1"
    assert notes == ["hunt is the search outputs/hunt"]


@pytest.mark.parametrize("make", [begun, damaged, lambda path: search_of(path, *TRIED, seeds=(1, 2))])
def test_no_state_of_a_search_ends_in_a_traceback(cli, make):
    make(HUNT)
    is_damaged = make is damaged
    assert cli("runs").exit_code == 0
    assert cli("board").exit_code == 0
    done = cli("inspect", "hunt" if not is_damaged else HUNT)
    assert (done.exit_code, "is damaged" in done.stderr) == ((2, True) if is_damaged else (0, False))
    for command in ("eval", "export"):
        done = cli(command, HUNT)
        assert (done.exit_code, done.stderr[-200:].count("error: ")) == (2, 1), done.stderr


def test_inspecting_a_search_tells_what_was_searched_and_how_to_go_on(cli):
    search_of(HUNT, *TRIED, seeds=(1, 2))
    found = inspect(HUNT)
    assert isinstance(found, SearchFacts)
    done = cli("inspect", HUNT)
    for text in (
        "search, done: 4 trials, 2 done, 1 pruned, 1 failed",
        "cell.nonlinearity one of tanh, relu",
        "#1, validation 90.00 %, optimizer.lr=2e-3 hidden=12 cell.nonlinearity=relu",
        "with 2 other seeds",
        "It diverged.",
        "search longer: rnnclf resume outputs/hunt trials=8",
    ):
        assert text in done.stdout
    plain = json.loads(cli("inspect", HUNT, "--json").stdout)
    assert (plain["kind"], plain["found"]["best"]["trial"]) == ("search", 1)
    begun(Path("new"))
    assert "resume it: rnnclf resume new" in cli("inspect", "new").stdout


@pytest.mark.parametrize(
    "dimension",
    [*SPACE.values(), Whole(4, 64, log=True), Whole(1, 3), Real(0.0, 0.5)],
)  # fmt: skip
def test_a_range_is_written_as_it_is_typed(dimension):
    key = next((key for key, known in SPACE.items() if known == dimension), "optimizer.lr")
    key = "hidden" if isinstance(dimension, Whole) else key
    assert searched([range_word(key, dimension)]).space == {key: dimension}


def test_the_record_that_is_written_by_hand_is_one_of_a_search():
    search_of(HUNT, *TRIED)
    assert read_search(HUNT).space == SPACE
