"""rnnclf predict of arrays, folders, archives, windows and pictures."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from rnnclf.cli import app
from rnnclf.data.synthetic import LongWaves, make
from tests.cli_runs import SMALL
from tests.conftest import logging_restored

pytestmark = pytest.mark.long


def answers(done) -> pl.DataFrame:
    assert done.exit_code == 0, done.output
    return pl.read_csv(io.StringIO(done.stdout), schema_overrides={"id": pl.String})


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the runs `arrays`, of 20 sequences, `windows`, of two recordings, and `digits`."""
    folder = tmp_path_factory.mktemp("trained")
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 5, 2)), np.arange(20) % 2
    np.savez(folder / "arrays.npz", x=x, y=y)
    make(folder / "windows.csv", LongWaves(0.1, 2, 10, 2))
    words = {
        "arrays": [str(folder / "arrays.npz")],
        "windows": [str(folder / "windows.csv"), "dataset.window=20", "dataset.block=100"],
        "digits": ["dataset=digits"],
    }
    with logging_restored(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name, own in words.items():
            more = [*own, f"hydra.run.dir={folder / name}", *SMALL[1:], "epochs=1"]
            assert CliRunner().invoke(app, ["train", *more]).exit_code == 0
    return folder


def test_arrays_need_no_labels(place, cli):
    expected = cli("predict", place / "arrays", place / "arrays.npz").stdout
    x = np.load(place / "arrays.npz")["x"]
    np.save("anything.npy", x)
    np.savez("one.npz", x)
    np.savez("two.npz", X_test=x, y_test=np.zeros(20))
    with h5py.File("three.h5", "w") as file:
        file["series"] = x
    for name in ("anything.npy", "one.npz", "two.npz", "three.h5"):
        assert cli("predict", place / "arrays", name).stdout == expected, name
    np.savez("many.npz", a=x, b=x)
    told = cli("predict", place / "arrays", place / "arrays.npz").stderr
    assert "20 sequences have labels: " in told
    np.savez("odd.npz", x=x, y=np.full(20, ""))
    assert "labels: " not in cli("predict", place / "arrays", "odd.npz").stderr
    assert "many.npz holds a, b; it needs one x." in cli("predict", place / "arrays", "many.npz").stderr
    np.save("other.npy", x[:, :, :1])
    told = cli("predict", place / "arrays", "other.npy").stderr
    assert "trained on sequences with 2 features per step; these have 1." in told
    bad = x.copy()
    bad[3, 1, 0], bad[4, 2, 1] = np.inf, np.nan
    np.save("bad.npy", bad)
    assert (
        "bad.npy, sequence 3, step 1 (counted from 0): '0' is infinite"
        in cli("predict", place / "arrays", "bad.npy").stderr
    )
    found = answers(cli("predict", place / "arrays", "bad.npy", "--skip-bad"))
    assert found.filter(pl.col("class").is_null())["id"].to_list() == ["3", "4"]


def test_the_files_of_a_folder_need_no_folders_of_classes(place, cli):
    expected = answers(cli("predict", place / "arrays", place / "arrays.npz"))
    x = np.load(place / "arrays.npz")["x"]
    Path("new/more").mkdir(parents=True)
    names = [f"{n:02}.npy" if n < 15 else f"more/{n}.npy" for n in range(20)]
    for name, sequence in zip(names, x, strict=True):
        np.save(f"new/{name}", sequence)
    found = answers(cli("predict", place / "arrays", "new"))
    assert found["id"].to_list() == names
    assert np.allclose(found["probability"], expected["probability"], atol=2e-6)
    Path("new/07.npy").write_bytes(b"damaged")
    done = cli("predict", place / "arrays", "new")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "07.npy" in done.stderr
    found = answers(cli("predict", place / "arrays", "new", "--skip-bad"))
    assert found["id"].to_list() == names
    assert found.filter(pl.col("class").is_null())["id"].to_list() == ["07.npy"]
    Path("empty").mkdir()
    assert "empty has no sequence files" in cli("predict", place / "arrays", "empty").stderr


def test_each_window_has_a_row_or_each_recording(place, cli):
    whole = pl.read_csv(place / "windows.csv")
    whole.drop("label").write_csv("new.csv")
    windows = answers(cli("predict", place / "windows", "new.csv"))
    steps = whole.group_by("recording", maintain_order=True).len() if "recording" in whole.columns else None
    recordings = answers(cli("predict", place / "windows", "new.csv", "--recordings"))
    assert len(recordings) == 2
    owner = windows["id"].str.replace(r":\d+$", "")
    assert steps is None or len(windows) == sum(n // 20 for n in steps["len"])
    assert owner.unique(maintain_order=True).to_list() == recordings["id"].to_list()
    column = next(name for name in windows.columns if name.startswith("p_"))
    means = windows.group_by(owner, maintain_order=True).agg(pl.col(column).mean())
    assert np.allclose(means[column], recordings[column], atol=2e-6)


def test_pictures_of_a_folder_are_read_like_those_of_training(place, cli):
    Path("new").mkdir()
    pixels = load_digits().images[:3]
    for n, picture in enumerate(pixels):
        grey = np.rint(picture / 16 * 255).astype(np.uint8)
        Image.fromarray(grey).save(f"new/{n}.png")
    found = answers(cli("predict", place / "digits", "new"))
    assert found["id"].to_list() == ["0.png", "1.png", "2.png"]
    assert cli("eval", place / "digits", "split=all", "--output", "scored").exit_code == 0
    (table,) = Path("scored").rglob("predictions.parquet")
    scored = pl.read_parquet(table).sort("id").head(3)
    assert np.allclose(found["p_3"], scored["probability_3"], atol=2e-6)
    Image.fromarray(np.zeros((9, 8), np.uint8)).save("new/3.png")
    told = cli("predict", place / "digits", "new").stderr
    assert "3.png has 8 × 9 pixels; the model was trained on pictures of 8 × 8." in told
    assert answers(cli("predict", place / "digits", "new", "--skip-bad"))["class"].null_count() == 1
    told = cli("predict", place / "digits", place / "windows.csv").stderr
    assert "The model was trained on pictures (digits)" in told
