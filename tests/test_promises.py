"""The figures of the README, measured again. Not how fast, which depends on the machine: how well."""

from __future__ import annotations

import json
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
