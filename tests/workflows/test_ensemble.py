"""`rnnclf ensemble`: chosen on validation as it says, scored as it says, and used by its checksums alone."""

from __future__ import annotations

import json
import os
import shutil
from itertools import combinations_with_replacement
from math import gcd
from pathlib import Path

import numpy as np
import pytest

from rnnclf.errors import CheckpointError, ConfigError, OutputError
from rnnclf.files import RECORD_LIMIT
from rnnclf.statistics import mcnemar_p, paired_interval
from rnnclf.workflows.ensemble import Ensemble, choose, greedy_weights, most_of
from rnnclf.workflows.ensemble_file import MOST_MEMBERS, read, save, verified
from rnnclf.workflows.sweep_folder import jobs_record
from tests.workflows.finished_runs import finished_run, rewrite
from tests.workflows.predicted_runs import predicted_run, save_checkpoint, splits

RIGHT = (1.5, 1.2, 1.0)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "all"
    cells = ("gru", "lstm", "basic")
    runs = [
        predicted_run(folder / cell, splits(seed, right), cell=cell)
        for seed, (cell, right) in enumerate(zip(cells, RIGHT, strict=True))
    ]
    save(choose(runs), folder / "saved.json")
    return folder


@pytest.fixture
def three(made_once, tmp_path) -> list[Path]:
    """Three runs, the first of which is the best."""
    shutil.copytree(made_once, tmp_path / "all")
    (tmp_path / "all" / "saved.json").unlink()
    return [tmp_path / "all" / cell for cell in ("gru", "lstm", "basic")]


@pytest.fixture
def chosen(three) -> Ensemble:
    return choose(three)


@pytest.fixture
def file(made_once, tmp_path) -> Path:
    """The file of an ensemble, without its members."""
    return Path(shutil.copy(made_once / "saved.json", tmp_path / "saved.json"))


def softmax(logits_NK: np.ndarray) -> np.ndarray:
    p_NK = np.exp(logits_NK.astype(np.float32).astype(np.float64))
    return p_NK / p_NK.sum(axis=1, keepdims=True)


def loss_of(label_RN: np.ndarray, picks: tuple[int, ...]) -> float:
    return float(-np.log(np.mean([label_RN[pick] for pick in picks], axis=0)).mean())


def labels(seed: int, runs: int = 3, n: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.02, 1, size=(runs, n))


# Choosing


@pytest.mark.parametrize("seed", range(8))
def test_each_step_adds_the_run_with_which_the_mean_is_best(seed):
    """Restated by trying all multisets of up to four of three runs."""
    label_RN, most = labels(seed), 4
    multisets = [
        picks for size in range(1, most + 1) for picks in combinations_with_replacement(range(3), size)
    ]
    loss = {picks: loss_of(label_RN, picks) for picks in multisets}
    path: list[tuple[int, ...]] = [()]
    for size in range(1, most + 1):
        larger = [picks for picks in multisets if len(picks) == size and contains(picks, path[-1])]
        path.append(min(larger, key=lambda picks: loss[picks]))
    best = min(path[1:], key=lambda picks: loss[picks])
    counts = [best.count(run) for run in range(3)]
    assert greedy_weights(label_RN, most) == [count // gcd(*counts) for count in counts]
    assert loss[best] >= min(loss.values())


def contains(larger: tuple[int, ...], smaller: tuple[int, ...]) -> bool:
    return all(larger.count(run) >= smaller.count(run) for run in range(3))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [1, 2, 7])
def test_weights_are_few_and_coprime_and_never_worse_than_the_best_run(seed, most):
    label_RN = labels(seed, runs=6)
    weights = greedy_weights(label_RN, most)
    assert 1 <= sum(weights) <= most
    assert gcd(*weights) == 1
    picks = tuple(run for run, weight in enumerate(weights) for _ in range(weight))
    assert loss_of(label_RN, picks) <= min(loss_of(label_RN, (run,)) for run in range(6)) + 1e-12


def test_of_equal_runs_the_first_is_taken_alone():
    label_RN = np.tile(labels(0, runs=1), (3, 1))
    assert greedy_weights(label_RN, 10) == [1, 0, 0]


def test_a_run_that_is_certain_of_something_wrong_can_still_be_ranked():
    assert greedy_weights(np.array([[0.0, 0.9], [0.5, 0.5]]), 1) == [0, 1]


def test_scores_are_those_of_the_weighted_mean(chosen, three):
    runs = {
        path.name: splits(seed, right) for seed, (path, right) in enumerate(zip(three, RIGHT, strict=True))
    }
    weights = {member.run.name: member.weight for member in chosen.members}
    assert len(weights) > 1
    for split, n in (("validation", 60), ("test", 90)):
        total = sum(weight * softmax(runs[name][split]) for name, weight in weights.items())
        p_NK, y_N = total / sum(weights.values()), np.arange(n) % 3
        found = chosen.scores[split]
        assert found["correct"] == int((p_NK.argmax(axis=1) == y_N).sum())
        assert found["loss"] == pytest.approx(-np.log(p_NK[np.arange(n), y_N]).mean(), rel=1e-12)


def test_the_best_single_run_is_that_of_the_best_validation_accuracy_and_is_compared(chosen, three):
    assert chosen.single.run == three[0]
    right = {
        path.name: softmax(splits(seed, good)["test"])
        for seed, (path, good) in enumerate(zip(three, RIGHT, strict=True))
    }
    weights = {member.run.name: member.weight for member in chosen.members}
    y_N = np.arange(90) % 3
    mixed_N = sum(w * right[name] for name, w in weights.items()).argmax(axis=1) == y_N
    single_N = right["gru"].argmax(axis=1) == y_N
    counts = [
        int((a & b).sum())
        for a, b in ((mixed_N, single_N), (mixed_N, ~single_N), (~mixed_N, single_N), (~mixed_N, ~single_N))
    ]
    against = chosen.against
    assert (against.only_ensemble, against.only_single, against.how) == (counts[1], counts[2], "checkpoints")
    assert against.p == mcnemar_p(counts[1], counts[2])
    assert against.interval95 == paired_interval(*counts)
    assert against.difference == pytest.approx((counts[1] - counts[2]) / 90)


def test_means_count_each_member_once(chosen):
    losses = [member.scores["test"]["loss"] for member in chosen.members]
    assert chosen.mean_of_members("test", "loss") == pytest.approx(np.mean(losses))


def test_members_are_named_by_what_differs(tmp_path):
    runs = [
        predicted_run(tmp_path / f"{n}", splits(n), seed=n % 2, cell="gru" if n < 2 else "lstm")
        for n in range(4)
    ]
    words = {member.words for member in choose(runs).members}
    assert words <= {f"cell={cell} seed={seed}" for cell in ("gru", "lstm") for seed in (0, 1)}


def test_an_ensemble_of_one_is_that_run_and_has_nothing_to_be_compared_with(tmp_path):
    good = predicted_run(tmp_path / "good", splits(0, right=6.0))
    bad = predicted_run(tmp_path / "bad", splits(1, right=-3.0), cell="lstm")
    found = choose([good, bad])
    assert [member.run for member in found.members] == [good]
    assert found.against is None
    assert found.scores == found.single.scores == found.members[0].scores


def test_windows_are_compared_over_their_recordings(tmp_path):
    recordings = {"validation": np.arange(60) // 6, "test": np.arange(90) // 6}
    runs = [
        predicted_run(tmp_path / cell, splits(seed), recordings=recordings, cell=cell)
        for seed, cell in enumerate(("gru", "lstm"))
    ]
    found = choose(runs)
    assert found.against.how == "recordings"
    low, high = found.against.interval95
    assert low < found.against.difference < high
    assert "recordings" in found.scores["test"]


def test_runs_that_cannot_take_part_are_left_out_and_counted(three, tmp_path):
    finished_run(tmp_path / "all" / "forest", [True], baseline="forest")
    unsaved = predicted_run(tmp_path / "all" / "unsaved", splits(9))
    (unsaved / "best.safetensors").unlink()
    running = predicted_run(tmp_path / "all" / "running", splits(8))
    rewrite(running / "status.json", state="failed")
    found = choose([tmp_path / "all"])
    assert found.candidates == 3
    assert found.notes == (
        "1 run is left out: not done.",
        "1 run is left out: a baseline, which has no checkpoint.",
        "1 run is left out: without predictions.parquet or a checkpoint.",
    )


def test_a_final_fit_is_told(tmp_path):
    runs = [predicted_run(tmp_path / f"{n}", splits(n), seed=n) for n in range(2)]
    for run in runs:
        rewrite(run / "results.json", final_fit=True)
    assert "trained the members once more" in choose(runs).notes[0]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"fingerprint": "0" * 64}, "data with checksum ffffffff, the other data with checksum 00000000"),
        (
            {"reading": {"permutation": "fixed"}},
            "dataset.permutation=none, the other dataset.permutation=fixed",
        ),
        ({"protocol": "tutorial"}, "the standard protocol, the other the tutorial protocol"),
        ({"dataset": {"split_seed": 3}}, "dataset.split_seed=0, the other dataset.split_seed=3"),
        ({"dataset": {"folds": 5, "fold": 1}}, "is a fold of a cross-validation"),
        ({"classes": ("a", "b", "d")}, "different classes"),
        ({"ids": {"validation": range(1, 61)}}, "different sequences"),
        ({"channels": ("y",)}, "different channels"),
    ],
)
def test_runs_that_were_judged_otherwise_are_refused(tmp_path, other, words):
    predicted_run(tmp_path / "one", splits(0))
    predicted_run(tmp_path / "two", splits(1), cell="lstm", **other)
    with pytest.raises(ConfigError, match=words) as error:
        choose([tmp_path])
    assert "two" in str(error.value)


def test_fewer_than_two_runs_are_refused_with_what_was_left_out(three):
    (three[1] / "predictions.parquet").unlink()
    with pytest.raises(ConfigError, match=r"only one finished run.*1 run is left out: without predictions"):
        choose(three[:2])
    with pytest.raises(CheckpointError, match="does not exist"):
        choose([Path("nowhere")])


def test_a_run_given_twice_counts_once(three):
    with pytest.raises(ConfigError, match="only one finished run"):
        choose([three[0], three[0] / "best.safetensors"])


def test_too_many_classes_for_a_table_of_probabilities_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("rnnclf.workflows.predictions.MANY_CLASSES", 2)
    runs = [predicted_run(tmp_path / f"{n}", splits(n), seed=n) for n in range(2)]
    with pytest.raises(ConfigError, match="no probabilities for each class"):
        choose(runs)


@pytest.mark.parametrize("content", [b"", b"PAR1 and more", None])
def test_damaged_predictions_are_told(three, content):
    table = three[1] / "predictions.parquet"
    table.write_bytes(table.read_bytes()[:-9] if content is None else content)
    with pytest.raises(
        ConfigError, match=r"lstm cannot be part of an ensemble: predictions\.parquet cannot be"
    ):
        choose(three)


def test_a_damaged_checkpoint_is_told(three):
    best = three[0] / "best.safetensors"
    best.write_bytes(best.read_bytes().replace(b'\\"x\\"', b'\\"y\\"'))
    with pytest.raises(CheckpointError, match="damaged"):
        choose(three)


@pytest.mark.parametrize("word", ["most=0", "most=101", "most=x", "most=", "most=²", "mst=3"])
def test_wrong_words_are_told(word):
    with pytest.raises(ConfigError, match="most"):
        most_of([word])


def test_the_most_members_can_be_chosen(three):
    assert most_of(["most=3"]) == 3
    assert [member.weight for member in choose(three, 1).members] == [1]


# The file


def test_what_is_read_is_what_was_chosen(chosen):
    file = save(chosen)
    found = read(file)
    assert [(m.checkpoint, m.sha256, m.weight) for m in found.members] == [
        (file.parent / m.checkpoint.relative_to(file.parent), m.sha256, m.weight) for m in chosen.members
    ]
    assert found.scores == json.loads(json.dumps(chosen.scores))
    plain = json.loads(file.read_text())
    assert plain["chosen"]["validation_is_optimistic"] is True
    assert all(not os.path.isabs(member["checkpoint"]) for member in plain["members"])


def test_file_and_members_can_be_moved_together(chosen, tmp_path):
    file = save(chosen)
    shutil.move(tmp_path / "all", tmp_path / "elsewhere")
    found = read(tmp_path / "elsewhere" / file.name)
    assert [verified(found, member).is_file() for member in found.members] == [True] * len(found.members)


def test_another_checkpoint_does_not_take_the_place_of_a_member(chosen):
    found = read(save(chosen))
    member = found.members[0]
    save_checkpoint(member.checkpoint, ("a", "b", "c"), ("x",), "another")
    with pytest.raises(CheckpointError, match="its checksum differs"):
        verified(found, member)
    member.checkpoint.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        verified(found, member)


MEMBER = {"checkpoint": "gru/best.safetensors", "sha256": "0" * 64, "weight": 1, "words": "cell=gru"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "run"}, "is not an ensemble"),
        ({"format": 2}, "reads 1"),
        ({"format": True}, "reads 1"),
        ({"members": []}, "does not list its members"),
        ({"members": [MEMBER] * (MOST_MEMBERS + 1)}, "does not list its members"),
        ({"members": [MEMBER, MEMBER]}, "names a member twice"),
        ({"members": [{**MEMBER, "weight": 0}]}, "no valid checksum and weight"),
        ({"members": [{**MEMBER, "weight": MOST_MEMBERS + 1}]}, "no valid checksum and weight"),
        ({"members": [{**MEMBER, "weight": True}]}, "does not list its members"),
        ({"members": [{**MEMBER, "weight": 1.5}]}, "does not list its members"),
        ({"members": [{**MEMBER, "sha256": "0" * 63 + "\n"}]}, "no valid checksum and weight"),
        ({"members": [{**MEMBER, "sha256": None}]}, "does not list its members"),
        ({"members": [{**MEMBER, "checkpoint": "/etc/passwd"}]}, "not inside its folder"),
        ({"members": [{**MEMBER, "checkpoint": "../best.safetensors"}]}, "not inside its folder"),
        ({"members": [{**MEMBER, "checkpoint": "gru/../../x"}]}, "not inside its folder"),
        ({"members": [{**MEMBER, "checkpoint": "..\\x"}]}, "not inside its folder"),
        ({"members": [{**MEMBER, "checkpoint": "C:x"}]}, "not inside its folder"),
        ({"members": [{**MEMBER, "checkpoint": "\\\\host\\share\\x"}]}, "not inside its folder"),
        ({"members": [{**MEMBER, "checkpoint": ""}]}, "not inside its folder"),
        ({"members": [{**MEMBER, "checkpoint": "a\0b"}]}, "not inside its folder"),
        ({"ensemble": {}}, "does not list its members and scores"),
        (
            {"ensemble": {"validation": {"accuracy": "high"}, "test": {}}},
            "does not list its members and scores",
        ),
    ],
)
def test_a_crafted_file_is_refused(file, change, words):
    rewrite(file, **change)
    with pytest.raises(CheckpointError, match=words):
        read(file)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b"null", b" " * (RECORD_LIMIT + 1)]
)
def test_what_is_no_json_object_is_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not an ensemble"):
        read(file)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(CheckpointError, match="is not an ensemble"):
        read(tmp_path / "pipe.json")


# Where it is written


def test_in_a_sweep_a_newer_ensemble_replaces_an_older_one(three, tmp_path):
    folder = tmp_path / "all"
    jobs_record(folder).write_text("{}")
    for number, run in enumerate(three):
        run.rename(folder / str(number))
    assert save(choose([folder])) == save(choose([folder], 1)) == folder / "ensemble.json"
    assert len(read(folder / "ensemble.json").members) == 1


def test_other_runs_in_the_same_folder_get_a_name_of_their_own(three):
    first, second = choose(three), choose(three, 1)
    assert [save(found).name for found in (first, second, first, second)] == [
        *("ensemble.json", "ensemble-2.json") * 2
    ]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("all/gru/x.json", "would not lie above its member"),
        ("elsewhere/x.json", "would not lie above its member"),
        ("all/x.txt", "ends in .json"),
        ("all/gru/status.json", "would not lie above"),
        ("all/other.json", "exists already and is not an ensemble"),
    ],
)
def test_a_file_where_it_cannot_be_is_refused(chosen, tmp_path, output, words):
    (tmp_path / "all" / "other.json").write_text("{}")
    with pytest.raises(OutputError, match=words):
        save(chosen, tmp_path / output)
    assert (tmp_path / "all" / "other.json").read_text() == "{}"


def test_a_file_may_be_written_into_any_folder_above_its_members(chosen, tmp_path):
    assert save(chosen, tmp_path / "mine.json") == tmp_path / "mine.json"
    assert {m.checkpoint for m in read(tmp_path / "mine.json").members} == {
        m.checkpoint for m in chosen.members
    }
