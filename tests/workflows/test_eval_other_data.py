"""What `rnnclf eval` scores if its words name other data than the model was trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rnnclf.console.evaluation import _notes
from rnnclf.console.screen import short
from rnnclf.data.seen import Seen
from rnnclf.errors import CheckpointError
from rnnclf.hydra_app import load_config
from rnnclf.workflows.evaluate import Evaluated, evaluate
from rnnclf.workflows.train import train

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

FAST = ["hidden=4", "epochs=1", "threads=1", "recipe=plain"]


def table(sequences: int, seed: int) -> pl.DataFrame:
    """Steps of two channels on scales of their own, with the class in both, in groups of four sequences."""
    random = np.random.default_rng(seed)
    number = np.repeat(np.arange(sequences), 5)
    x, y = random.normal(size=(2, len(number))) + np.where(number % 2, 1.0, -1.0)
    return pl.DataFrame(
        {
            "id": number,
            "site": [f"s{n // 4}" for n in number],
            "time": np.tile(np.arange(5), sequences),
            "x": x,
            "y": 100 * y,
            "label": np.where(number % 2, "run", "walk"),
        }
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with tables and arrays, and a run on each way to give them."""
    base = tmp_path_factory.mktemp("other")
    for seed, (name, sequences) in enumerate((("train", 60), ("test", 40), ("new", 24))):
        frame = table(sequences, seed)
        frame.write_csv(base / f"{name}.csv")
        (base / name).mkdir()
        np.save(base / name / "x.npy", frame.select("x", "y").to_numpy().reshape(sequences, 5, 2))
        np.save(base / name / "truth.npy", frame["label"].to_numpy().reshape(sequences, 5)[:, 0].astype(str))
    np.save(base / "new" / "y.npy", np.load(base / "new" / "truth.npy"))
    train_on = ["dataset=table", f"dataset.path={base}/train.csv"]
    given = [f"dataset.test_path={base}/test.csv", "dataset.group=site"]
    drawn = ["dataset.group=site", "dataset.folds=3", "dataset.fold=2"]
    arrays = [
        "dataset=arrays",
        f"dataset.path={base}/train/x.npy",
        f"dataset.labels={base}/train/truth.npy",
        "dataset.test=25",
    ]
    for name, words in (("given", [*train_on, *given]), ("drawn", [*train_on, *drawn]), ("arrays", arrays)):
        train(load_config([*words, *FAST]), base / f"run_{name}")
    return base


@pytest.fixture(scope="module")
def new(place) -> Evaluated:
    return score(place, "given", "dataset.path=new.csv")


def score(place: Path, run: str, *words: str) -> Evaluated:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        (found,) = evaluate(f"run_{run}", words)
    return found


def recorded(place: Path, run: str) -> int:
    correct: int = json.loads((place / f"run_{run}" / "results.json").read_text())["test"]["correct"]
    return correct


def test_a_new_file_is_scored_as_a_whole_without_the_old_test_file(new):
    assert (new.data, new.split, new.evaluation.score.total) == ("new.csv", "all", 24)
    assert new.config.dataset.test_path is None
    assert new.other_data


def test_a_new_test_file_is_scored_under_its_own_name(place, new):
    found = score(place, "given", "dataset.test_path=new.csv")
    assert (found.data, found.split, found.evaluation.score.total) == ("new.csv", "test", 24)
    assert found.evaluation.score == new.evaluation.score
    everything = score(place, "given", "dataset.test_path=new.csv", "split=all")
    assert (everything.data, everything.evaluation.score.total) == ("train.csv and new.csv", 84)


def test_the_same_data_in_another_place_repeat_the_record(place, tmp_path):
    for name in ("train.csv", "test.csv"):
        shutil.copy(place / name, tmp_path / f"moved_{name}")
    path, test_path = (
        f"path={tmp_path}/moved_train.csv",
        f"test_path={tmp_path}/moved_test.csv",
    )
    for run, words in (("drawn", [path]), ("given", [path, test_path])):
        found = score(place, run, *(f"dataset.{word}" for word in words))
        assert (found.split, found.other_data) == ("test", False)
        assert found.recorded_correct == found.evaluation.score.correct == recorded(place, run)


def test_new_sequences_are_not_scored_against_old_labels(place):
    found = score(place, "arrays", "dataset.path=new")
    assert (found.split, found.evaluation.score.total) == ("all", 24)
    (place / "new" / "y.npy").rename(place / "new" / "z.npy")
    try:
        with pytest.raises(Exception, match=r"y\.npy does not exist: put the labels"):
            score(place, "arrays", "dataset.path=new/x.npy")
        typed = score(place, "arrays", "dataset.path=new/x.npy", "dataset.labels=new/truth.npy")
    finally:
        (place / "new" / "z.npy").rename(place / "new" / "y.npy")
    assert typed.evaluation.score == found.evaluation.score


def test_words_that_split_the_old_data_do_not_split_new_data(place):
    """25 test sequences fit into 60 sequences, not into 24."""
    found = score(place, "arrays", "dataset.path=new", "split=test")
    assert found.evaluation.score.total == round(0.2 * 24)
    asked = score(place, "arrays", "dataset.path=new", "split=test", "dataset.test=8")
    assert asked.evaluation.score.total == 8


def test_columns_are_found_by_name_and_others_are_left_out(place, new):
    frame = pl.read_csv(place / "new.csv")
    files = {
        "swapped": frame.select("y", "x", "time", "label", "id"),
        "wider": frame.with_columns(z=7.0, a=pl.col("x")).select(sorted([*frame.columns, "z", "a"])),
    }
    for name, changed in files.items():
        changed.write_csv(place / f"{name}.csv")
        found = score(place, "given", f"dataset.path={name}.csv")
        assert found.evaluation.score == new.evaluation.score
    assert "wider.csv: the model was not trained on a, z, which are left out." in found.notes
    frame.drop("x").write_csv(place / "narrow.csv")
    with pytest.raises(CheckpointError, match="trained on the channels x, y; these data have y"):
        score(place, "given", "dataset.path=narrow.csv")


def test_groups_are_not_asked_for_where_they_mean_nothing(place, new):
    pl.read_csv(place / "new.csv").drop("site").write_csv(place / "alone.csv")
    found = score(place, "given", "dataset.path=alone.csv")
    assert found.evaluation.score == new.evaluation.score
    assert "alone.csv has no column 'site' (dataset.group): done without." in found.notes


# Sequences that the model was trained on


def relation(found: Evaluated) -> str:
    return " ".join(_notes(found))


TRAINED = "it was trained on {} of these {} sequences: the accuracy is too optimistic."


def test_a_score_on_training_sequences_says_how_many(place):
    trained_on = json.loads((place / "run_given" / "results.json").read_text())["train"]["total"]
    found = score(place, "given", "split=all")
    assert (found.trained_on, found.evaluation.score.total) == (trained_on, 100)
    assert relation(found).endswith(TRAINED.format(trained_on, 100))
    assert json.loads(json.dumps(found.to_dict()))["trained_on"] == trained_on
    for split, number in (("test", 0), ("train", trained_on)):
        found = score(place, "given", f"split={split}")
        assert (found.trained_on, relation(found)) == (number, "")


def test_another_draw_of_the_test_split_holds_training_sequences(place):
    found = score(place, "arrays", "dataset.split_seed=5")
    assert 0 < found.trained_on < found.evaluation.score.total == 25
    assert relation(found).endswith(TRAINED.format(found.trained_on, 25))


def test_a_part_of_the_training_file_is_not_called_other_data(place):
    train_file = pl.read_csv(place / "train.csv")
    train_file.filter(pl.col("id") % 3 == 0).write_csv(place / "third.csv")
    found = score(place, "given", "dataset.path=third.csv")
    assert found.other_data
    assert 0 < found.trained_on <= 20 == found.evaluation.score.total
    assert "not the data" not in relation(found)
    assert TRAINED.format(found.trained_on, 20) in relation(found)
    swapped = train_file.select("y", "x", "time", "label", "id", "site").filter(pl.col("id") % 3 == 0)
    swapped.write_csv(place / "swapped_third.csv")
    again = score(place, "given", "dataset.path=swapped_third.csv")
    assert again.trained_on == found.trained_on


def test_data_of_which_nothing_was_trained_on_are_other_data(new):
    assert new.trained_on == 0
    assert relation(new).startswith(f"{short(new.path.parent.absolute())}: these are not the data it was")


def test_the_same_values_in_64_bits_are_known(place):
    x = np.load(place / "train" / "x.npy")
    for dtype in (np.float32, np.float64):
        (place / dtype.__name__).mkdir()
        np.save(place / dtype.__name__ / "x.npy", x.astype(dtype))
        labels = np.load(place / "train" / "truth.npy")
        np.save(place / dtype.__name__ / "y.npy", labels)
    train(load_config(["dataset=arrays", f"dataset.path={place}/float32", *FAST]), place / "run_bits")
    found = score(place, "bits", "dataset.path=float64")
    assert found.other_data
    assert found.trained_on == json.loads((place / "run_bits" / "results.json").read_text())["train"]["total"]


def test_without_a_record_a_part_of_the_data_is_not_called_other_data(place, tmp_path):
    shutil.copytree(place / "run_given", tmp_path / "run")
    record = tmp_path / "run" / "trained_on.npz"
    for damaged in (b"", b"PK\x03\x04 no zip", b"\x93NUMPY\x01\x00", record.read_bytes()[:-40]):
        record.write_bytes(damaged)
        assert Seen.read(record) is None
    record.unlink()
    (found,) = evaluate(tmp_path / "run", [f"dataset.path={place}/new.csv"])
    assert found.trained_on is None
    assert "there is no record of which sequences it was trained on" in relation(found)


def test_a_checkpoint_alone_knows_its_own_data(place, tmp_path):
    shutil.copy(place / "run_given" / "best.safetensors", tmp_path / "alone.safetensors")
    (alone,) = evaluate(tmp_path / "alone.safetensors", ["split=all"])
    assert (
        alone.trained_on == json.loads((place / "run_given" / "results.json").read_text())["train"]["total"]
    )
