"""The C program in docs/deploying.md answers as rnnclf does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rnnclf.calibration import probabilities
from rnnclf.export.running import Runner
from rnnclf.export.whole import Answers, whole_model
from tests.export.exporting import classifier, needs_onnx, preparation, written

needs_onnx()
pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "deploying.md"
NAMES = ('a "quoted" \\ name', "größer → 𝄞", "plain, with a comma")
HEADERS = (os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime", "/usr/local/include")


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The compiled program."""
    import onnxruntime

    if (compiler := shutil.which("gcc")) is None:
        pytest.skip("needs gcc")
    found = [folder for folder in HEADERS if folder and (Path(folder) / "onnxruntime_c_api.h").is_file()]
    if not found:
        pytest.skip("needs onnxruntime_c_api.h: set ONNXRUNTIME_INCLUDE to its folder")
    (library, *_) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    folder = tmp_path_factory.mktemp("c")
    [text] = re.findall(r"```c\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "classify.c").write_text(text)
    (folder / "libonnxruntime.so.1").symlink_to(library)  # as it is called where it is installed
    words = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-I", found[0]]
    linked = [library, "-lm", f"-Wl,-rpath,{folder}", "-o", folder / "classify"]
    subprocess.run([compiler, *words, folder / "classify.c", *linked], check=True)
    return folder / "classify"


def run(program: Path, *words: object) -> subprocess.CompletedProcess[str]:
    leaks = {"ASAN_OPTIONS": "detect_leaks=0"}  # of the library
    return subprocess.run(
        [program, *map(str, words)], capture_output=True, text=True, env={**os.environ, **leaks}
    )


@pytest.mark.parametrize("ragged", [True, False])
def test_it_prints_the_names_and_probabilities_of_the_file(program, tmp_path, ragged):
    model = whole_model(classifier("gru", 6), preparation("mask"), Answers(NAMES), ragged=ragged)
    file = written(
        tmp_path / "model.onnx", model, classes=list(NAMES), preparation=preparation("mask").to_plain()
    )
    rows = [("0.5", "-1e1"), ("", "2"), ("3", ""), ("1.25", "7.5")]
    (tmp_path / "one.csv").write_text("u,v\n" + "".join(f"{u},{v}\r\n" for u, v in rows))
    done = run(program, file, tmp_path / "one.csv")
    assert done.returncode == 0, done.stderr
    x_1TC = np.array([[[float(cell or "nan") for cell in row] for row in rows]])
    [logits] = Runner.load(file).answers(x_1TC, np.array([4]))
    printed = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [name for _, name in printed] == list(NAMES)
    found_K = np.array([float(probability) for probability, _ in printed])
    np.testing.assert_allclose(found_K, probabilities(logits, 1.0)[0], atol=2e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read the CSV file"),
        ("u,v\n", "the CSV file has no steps"),
        ("u,v\n1,2\n3\n", "a line does not hold a number for each channel"),
        ("u,v\n1,2,3\n", "a line does not hold a number for each channel"),
        ("u,v\n1,b\n", "a line does not hold a number for each channel"),
    ],
)
def test_what_it_cannot_read_is_told_in_a_sentence(program, tmp_path, text, message):
    file = written(
        tmp_path / "model.onnx", whole_model(classifier("gru", 2), preparation(), Answers(NAMES), ragged=True)
    )
    if text is not None:
        (tmp_path / "one.csv").write_text(text)
    done = run(program, file, tmp_path / "one.csv")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {message}\n")
