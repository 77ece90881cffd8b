"""The functions of the driver, each alone: what they compute, and what they leave alone."""

from __future__ import annotations

import ctypes
import threading
import time

import numpy as np
import pytest
import torch

pytest.importorskip("llvmlite")

from rnnclf.engine.machine.cache import compiled
from rnnclf.engine.machine.driver.driver import DriverModule
from rnnclf.engine.machine.driver.readouts import KINDS
from rnnclf.engine.machine.driver.tables import Copy, Move, Part, Readout, Shared, address_of, stored
from rnnclf.engine.machine.emit.instructions import Target

ARGUMENTS = {"wait": 2, "copy": 3, "move": 2, "read": 1, "read_backward": 1, "clip": 4}


@pytest.fixture(scope="module")
def call():
    """Calls a function of the driver in float32."""
    at = compiled(str(DriverModule(False).ir), tuple(ARGUMENTS))
    known = {name: ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * n)(at[name]) for name, n in ARGUMENTS.items()}
    return lambda name, *arguments: known[name](*arguments)


def part(lengths, **fields):
    """A part of a batch with sequences of these lengths, the longest first; other fields are 0."""
    lengths_N = np.array(lengths)
    running_T = (lengths_N > np.arange(max(lengths))[:, None]).sum(1)
    known = {"rows": len(lengths), "steps": max(lengths), "lengths": address_of(lengths_N)} | fields
    known["running"] = address_of(running_T)
    table = stored([Part(**{name: known.get(name, 0) for name in Part._fields})])
    return table, (lengths_N, running_T)


@pytest.mark.parametrize("width", [1, 8, 11])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_copies_are_of_valid_steps_only(call, width, reverse, add):
    lengths = (5, 3, 1)
    table, keep = part(lengths)
    source_TND = np.random.default_rng(0).normal(size=(5, 3, width)).astype(np.float32)
    target_TND = np.full((5, 3, 16), 7, np.float32)
    copies = stored([
        Copy(address_of(source_TND), *source_TND.strides[:2], address_of(target_TND[:, :, 2:]),
             *target_TND.strides[:2], 4 * width, reverse, add, 0, 0, 0, 0)
    ])  # fmt: skip
    call("copy", address_of(copies), 1, address_of(table))
    expected = np.full((5, 3, 16), 7, np.float32)
    for n, length in enumerate(lengths):
        steps = source_TND[:length, n][:: -1 if reverse else 1]
        expected[:length, n, 2 : 2 + width] = steps + (7 if add else 0)
    np.testing.assert_array_equal(target_TND, expected)
    del keep


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 8, 11])
def test_readouts_and_their_gradients_are_those_of_torch(call, kind, width):
    from rnnclf.readout import READOUTS

    lengths = torch.tensor([5, 3, 3, 1])
    y_TND = torch.randint(3, (5, 4, width), generator=torch.Generator().manual_seed(0)).float()  # with ties
    for n, length in enumerate(lengths):
        y_TND[length:, n] = y_TND[length - 1, n]
    y_TND.requires_grad_()
    read = y_TND[-1] if kind == "last" else y_TND
    expected = READOUTS[kind].read(None, read, lengths)
    d_features = torch.randn(4, width)
    (expected_dy,) = torch.autograd.grad(expected, y_TND, d_features)
    for n, length in enumerate(lengths):  # to the driver, there is nothing behind the end
        expected_dy[length - 1, n] += expected_dy[length:, n].sum(0)
        expected_dy[length:, n] = 0

    y, features, dy = (
        y_TND.detach().numpy(),
        np.zeros((4, width), np.float32),
        np.zeros((5, 4, width), np.float32),
    )
    shared = stored([Shared(**(dict.fromkeys(Shared._fields, 0) | {"features_row": features.strides[0]}))])
    readouts = stored([
        Readout(KINDS.index(kind), address_of(y), *y.strides[:2], 4 * width, address_of(features),
                d_features.data_ptr(), address_of(dy), *dy.strides[:2])
    ])  # fmt: skip
    table, keep = part(
        lengths.tolist(), shared=address_of(shared), readouts=address_of(readouts), readout_count=1
    )
    call("read", address_of(table))
    np.testing.assert_allclose(features, expected.detach().numpy(), rtol=1e-6)
    call("read_backward", address_of(table))
    np.testing.assert_allclose(dy, expected_dy.numpy(), rtol=1e-6)
    del keep


def test_moves_turn_sums_into_gradients(call):
    sums = np.arange(24, dtype=np.float32)
    gradient = np.zeros((3, 4), np.float32)
    moves = stored([Move(address_of(sums), 4, 32, 3, 2, address_of(gradient), 16, 4)])
    call("move", address_of(moves), 1)
    np.testing.assert_array_equal(gradient[:, :2], [[0, 8], [1, 9], [2, 10]])
    assert not gradient[:, 2:].any()


@pytest.mark.parametrize("length", [3, 8, 29])
@pytest.mark.parametrize("share", [0.5, 2.0])
def test_gradients_are_clipped_to_a_norm(call, length, share):
    gradients = torch.randn(length, generator=torch.Generator().manual_seed(length))
    norm = gradients.double().norm().item()
    most, found, clipped = np.array([norm * share]), np.zeros(1), gradients.clone()
    call("clip", clipped.data_ptr(), 4 * length, address_of(most), address_of(found))
    assert found[0] == pytest.approx(norm, rel=1e-7)
    torch.testing.assert_close(clipped, gradients * min(share, 1.0))


@pytest.mark.parametrize("worst", [torch.nan, torch.inf])
def test_gradients_without_a_norm_stay_as_they_are(call, worst):
    gradients = torch.tensor([1.0, worst, 2.0])
    before, most, found = gradients.clone(), np.array([0.1]), np.zeros(1)
    call("clip", gradients.data_ptr(), 12, address_of(most), address_of(found))
    assert not np.isfinite(found[0])
    torch.testing.assert_close(gradients, before, equal_nan=True)


def test_a_thread_waits_until_its_counter_is_reached(call):
    counter = np.zeros(1, np.int64)
    waiting = threading.Thread(target=call, args=["wait", address_of(counter), 3])
    waiting.start()
    for value in (1, 2):
        counter[0] = value
        time.sleep(0.01)  # long enough for it to fall asleep
        assert waiting.is_alive()
    counter[0] = 3
    waiting.join(timeout=5)
    assert not waiting.is_alive()


@pytest.mark.parametrize(
    ("triple", "vector", "sleep", "pauses"),
    [
        ("x86_64-pc-windows-msvc", 32, "Sleep", True),
        ("aarch64-unknown-linux-gnu", 16, "usleep", False),
        ("x86_64-unknown-linux-gnu", 64, "usleep", True),
    ],
)
def test_each_system_sleeps_and_pauses_in_its_own_way(triple, vector, sleep, pauses):
    text = str(DriverModule(True, Target(triple, vector)).ir)
    assert f'@"{sleep}"' in text
    assert ("sse2.pause" in text) == pauses
