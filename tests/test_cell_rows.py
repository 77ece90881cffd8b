"""The cells compared on rows of MNIST: how a rate is found, and that nothing is trained twice."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest

from benchmarks.cells import rows


@pytest.mark.parametrize("best", rows.RATES)
def test_the_best_rate_is_found_and_has_a_worse_one_on_both_sides(best):
    tried = []

    def loss(rate: float) -> float:
        tried.append(rate)
        return abs(math.log(rate / best))

    assert rows.best_rate(loss) == best
    place = rows.RATES.index(best)
    assert {*rows.RATES[max(place - 1, 0) : place + 2], *rows.RATES[rows.FIRST]} == {*tried}


def test_a_rate_that_diverges_is_not_the_best():
    assert rows.best_rate(lambda rate: math.inf if rate > 1e-3 else 1 / rate) == 1e-3


def test_a_cell_is_measured_once(monkeypatch, tmp_path):
    results = tmp_path / "rows.jsonl"
    monkeypatch.setattr(rows, "RESULTS", results)
    trained = []

    def choose_measured(words: str, seed: int) -> dict:
        trained.append((words, "validation"))
        return {"words": words, "seed": seed, "loss": math.nan if "lr=0.01" in words else 0.1}

    def score(words: str, seed: int, run: object) -> dict:
        trained.append((words, seed))
        return {"words": words, "seed": seed, "test": 0.9}

    facts = {"hidden": 3, "parameters": 100}
    monkeypatch.setattr(rows.choose, "measured", choose_measured)
    monkeypatch.setattr(rows.measure, "trained", score)
    monkeypatch.setattr(rows, "RunFolder", lambda path: SimpleNamespace(read_results=lambda: facts))
    rows.measured("gru", tmp_path)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    rates = {line["lr"] for line in lines if "test" not in line}
    assert {line["lr"] for line in lines if "test" in line} < rates
    assert [line["seed"] for line in lines if "test" in line] == [*rows.SEEDS]
    assert len({*trained}) == len(trained)
    rows.measured("gru", tmp_path)
    assert len(trained) == len(lines)
