"""The figures of the README, measured again. Not how fast, which depends on the machine: how well."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from tests.conftest import REAL, needs_mnist


def accuracy_of(cli, *words: str) -> float:
    done = cli("train", *words, "--json")
    assert done.exit_code == 0, done.output
    return float(json.loads(done.stdout)["test"]["accuracy"])


def test_the_digits_are_learned_to_95_percent_within_half_a_minute(cli):
    started = time.perf_counter()
    assert accuracy_of(cli, "cell=basic", "hidden=150", "dataset=digits") >= 0.95
    assert time.perf_counter() - started < 30


@pytest.mark.slow
@needs_mnist
def test_mnist_is_learned_to_97_5_percent(cli):
    assert accuracy_of(cli, "cell=basic", "hidden=150", f"dataset.root={REAL}") >= 0.975


@pytest.mark.slow
@needs_mnist
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_training_on_mnist_takes_little_memory_beside_torch(tmp_path):
    peak = "print('peak', re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"

    def mebibytes(code: str) -> float:
        code = f"import atexit, re, sys\natexit.register(lambda: {peak})\n{code}"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return int(done.stdout.split()[-1]) / 1024

    words = ["rnnclf", "train", "cell=basic", "hidden=150", "epochs=1", f"dataset.root={REAL}"]
    whole = mebibytes(f"sys.argv = {words}\nfrom rnnclf.cli import app\napp()")
    assert whole < 900
    assert whole - mebibytes("import torch") < 320
