"""Curves of ranks, against NumPy's interpolation between its quantiles."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from rnnclf.data import Learned
from rnnclf.data.base import assembled
from rnnclf.data.preparation import Preparation, fitted
from rnnclf.data.quantiles import AT_ONCE, IDENTITY, PIECES, Curve, Pieces, along
from rnnclf.errors import ConfigError
from rnnclf.export.prepared_step import PreparedStep
from rnnclf.training.step_source import reads_raw
from tests.data.test_preparation import LENGTHS, padded, recordings

NAN = math.nan
ROOT = math.sqrt(3)


def heavy(size: int = 20_000, seed: int = 0) -> np.ndarray:
    """A few values are a thousand times as large as most."""
    return np.random.default_rng(seed).standard_cauchy(size)


def on(curve: Curve, values: np.ndarray) -> np.ndarray:
    """In float64."""
    return along(Pieces.of([curve]), torch.from_numpy(values)[:, None, None])[:, 0, 0].numpy()


@pytest.mark.parametrize("seed", range(3))
def test_training_values_are_spread_evenly_by_their_ranks(seed):
    values = heavy(seed=seed)
    levels = on(Curve.through(values), values)
    ranks = (rankdata(values) - 0.5) / len(values)
    inner = (ranks > 1 / PIECES) & (ranks < 1 - 1 / PIECES)  # the ranks of the tails are not straight lines
    np.testing.assert_allclose(levels[inner], 2 * ROOT * (ranks[inner] - 0.5), atol=0.03)
    assert np.abs(levels).max() == pytest.approx(ROOT)
    assert levels.mean() == pytest.approx(0, abs=0.02)
    assert levels.std() == pytest.approx(1, abs=0.05)


def test_between_quantiles_it_is_a_line_and_beyond_them_the_mean_slope_goes_on():
    values = heavy()
    curve = Curve.through(values)
    knots = np.quantile(values, np.linspace(0, 1, PIECES + 1))
    np.testing.assert_allclose(curve.knots, knots)
    inside = np.sort(np.random.default_rng(1).choice(values, 500))
    wanted = np.interp(inside, knots, np.linspace(-ROOT, ROOT, PIECES + 1))
    np.testing.assert_allclose(on(curve, inside), wanted, atol=1e-12)
    slope, far = 2 * ROOT / (knots[-1] - knots[0]), np.array([-1e5, 1e5])
    np.testing.assert_allclose(
        on(curve, np.array([knots[0], knots[-1]]) + far), np.array([-ROOT, ROOT]) + slope * far
    )


def test_equal_values_have_the_mean_of_their_ranks():
    values = np.concatenate([np.zeros(600), np.linspace(1, 2, 400)])
    curve = Curve.through(values)
    assert curve.knots[0] == 0
    assert curve.levels[0] == pytest.approx(2 * ROOT * (0.3 - 0.5), abs=0.05)
    assert on(curve, values).mean() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("values", [[], [NAN, NAN], [3.0], [2.0, 2.0, NAN]])
def test_without_two_different_values_nothing_is_changed(values):
    assert Curve.through(np.array(values)) == IDENTITY
    few = np.array([-7.0, 0.0, 0.25, 1.0, 9.0])
    assert on(IDENTITY, few).tolist() == few.tolist()


def test_missing_values_stay_missing_and_channels_keep_apart():
    curves = [Curve.through(heavy()), IDENTITY, Curve((0.0, 2.0), (-1.0, 1.0))]
    x_BTC = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    x_BTC[1, 2, 0] = x_BTC[3, 4, 2] = NAN
    y_BTC = along(Pieces.of(curves), x_BTC)
    assert torch.equal(y_BTC.isnan(), x_BTC.isnan())
    assert y_BTC.dtype == x_BTC.dtype
    for c, curve in enumerate(curves):
        torch.testing.assert_close(
            y_BTC[..., [c]], along(Pieces.of([curve]), x_BTC[..., [c]]), equal_nan=True
        )
    at_once = Pieces.of(curves).like(x_BTC).at(x_BTC)
    torch.testing.assert_close(at_once, y_BTC, equal_nan=True)


def test_many_values_are_done_part_by_part_with_the_same_result():
    curve, x_BTC = Curve.through(heavy()), torch.randn(3, AT_ONCE // 2 + 1, 1)
    assert torch.equal(
        along(Pieces.of([curve]), x_BTC), torch.cat([along(Pieces.of([curve]), x_BTC[[n]]) for n in range(3)])
    )


def test_the_curves_of_a_preparation_are_those_of_its_training_values():
    data, train = recordings(gaps=False), np.array([0, 2, 4])
    prepare = fitted(data, train, "error", "quantiles")
    x_BTI = prepare(*padded(data))
    together = np.concatenate([data.values_SC[data.starts_N[n] :][: data.lengths_N[n]] for n in train])
    knots = np.quantile(together, np.linspace(0, 1, PIECES + 1), axis=0)
    levels = np.linspace(-ROOT, ROOT, PIECES + 1)
    for n in train:
        for c in range(2):
            x = data.values_SC[data.starts_N[n] :][: LENGTHS[n], c]
            wanted = np.interp(x, knots[:, c], levels)
            np.testing.assert_allclose(x_BTI[n, : LENGTHS[n], c], wanted, atol=1e-4)


@pytest.mark.parametrize("missing", ["mask", "interpolate"])
def test_gaps_are_treated_after_the_curve(missing):
    data = recordings()
    prepare = fitted(data, np.arange(5), missing, "quantiles")
    x_BTC, lengths_B, times_BT = padded(data)
    shift, scale = (torch.tensor(each) for each in (prepare.shift_C, prepare.scale_C))
    straight = replace(prepare, shift_C=(0.0, 0.0), scale_C=(1.0, 1.0), curve_C=())
    levels = along(Pieces.of(prepare.curve_C), ((x_BTC - shift) / scale).float())
    wanted, found = straight(levels, lengths_B, times_BT), prepare(x_BTC, lengths_B, times_BT)
    for n, length in enumerate(LENGTHS):
        torch.testing.assert_close(found[n, :length], wanted[n, :length])


def test_a_checkpoint_keeps_the_curves():
    prepare = fitted(recordings(), np.arange(5), "mask", "quantiles")
    plain = json.loads(json.dumps(prepare.to_plain()))
    assert Preparation.from_plain(plain) == prepare
    assert Preparation.from_plain({k: v for k, v in plain.items() if k != "curve_C"}).curve_C == ()
    for damage in (
        [asdict(prepare.curve_C[0])],
        [{"knots": [0, 1], "levels": [0, NAN]}, asdict(IDENTITY)],
        [{"knots": [1, 0], "levels": [0, 1]}, asdict(IDENTITY)],
        [{"knots": [0], "levels": [0]}, asdict(IDENTITY)],
        [3, 4],
        "curves",
    ):
        with pytest.raises(ConfigError, match="preparation"):
            Preparation.from_plain({**plain, "curve_C": damage})


def test_names_have_no_ranks():
    data = recordings(gaps=False, categories={"v": ("red", "blue", "green")})
    data.values_SC[:, 1] = np.arange(len(data.values_SC)) % 3
    prepare = fitted(data, np.arange(5), "error", "quantiles").reading(data)
    assert prepare.curve_C[1] == IDENTITY
    plain = replace(prepare, curve_C=(), shift_C=(0.0, 0.0), scale_C=(1.0, 1.0))
    x_BTC, lengths_B, _ = padded(data)
    assert torch.equal(prepare(x_BTC, lengths_B, None)[..., 1], plain(x_BTC, lengths_B, None)[..., 1])


def test_a_table_of_names_alone_has_no_curves_to_follow():
    data = recordings(gaps=False, categories={"u": ("red", "blue"), "v": ("red", "blue", "green")})
    data.values_SC[:] = np.arange(data.values_SC.size).reshape(-1, 2) % 2
    prepare = fitted(data, np.arange(5), "error", "quantiles").reading(data)
    straight = replace(prepare, curve_C=(), shift_C=(0.0, 0.0), scale_C=(1.0, 1.0))
    x_BTC, lengths_B, _ = padded(data)
    assert torch.equal(prepare(x_BTC, lengths_B, None), straight(x_BTC, lengths_B, None))
    step = PreparedStep(prepare, torch.float32)
    features, _ = step(torch.ones(1, 2), torch.ones(1), torch.zeros(1, 1), None)
    assert features.tolist() == [[1.0, 1.0]]


def test_machine_code_does_not_read_values_that_lie_on_a_curve():
    data = recordings(gaps=False)
    data = data.copied(data.values_SC.astype(np.float32))
    for normalise, is_raw in (("standard", True), ("quantiles", False)):
        learned = Learned(fitted(data, np.arange(5), "error", normalise), data.classes)
        assert reads_raw(assembled(data, learned, now=False)) == is_raw
