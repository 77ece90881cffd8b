"""S4D and S5 start with the eigenvalues of HiPPO and the weights of their papers."""

import math

import numpy as np
import pytest

from rnnclf.cells.s4d import S4D
from rnnclf.cells.s5 import S5
from tests.cells.state_spaces import expect_normal, started

# HiPPO-LegS by its definition, and its part that is normal


def hippo_legs(size):
    """The matrix A of dc/dt = A c + B u for the coefficients c of scaled Legendre polynomials."""
    matrix = np.zeros((size, size))
    for n in range(size):
        matrix[n, n] = -(n + 1)
        for k in range(n):
            matrix[n, k] = -math.sqrt((2 * n + 1) * (2 * k + 1))
    return matrix


def normal_part(size):
    root = np.sqrt(np.arange(size) + 0.5)
    return hippo_legs(size) + np.outer(root, root)


def upper_eigenvalues(size):
    """Those above the real axis, from the lowest on."""
    eigenvalues = np.linalg.eigvals(normal_part(size))
    upper = eigenvalues[eigenvalues.imag > 0]
    return upper[np.argsort(upper.imag)]


# S4D


SIZES = [2, 4, 64]
S4D_FREQUENCIES = {
    "lin": lambda size: np.pi * np.arange(size // 2),
    "inv": lambda size: size / np.pi * (size / (2 * np.arange(size // 2) + 1) - 1),
    "legs": lambda size: upper_eigenvalues(size).imag,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("init", S4D_FREQUENCIES)
def test_s4d_eigenvalues_start_as_the_paper_has_them_in_every_unit(init, size):
    weights = started(S4D, hidden_size=3, init=init, state_size=size)
    np.testing.assert_allclose(np.exp(weights["log_decay"]), 0.5, rtol=1e-6)
    expected = np.broadcast_to(S4D_FREQUENCIES[init](size), (3, size // 2))
    np.testing.assert_allclose(weights["frequency"], expected, rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_eigenvalues_of_normal_hippo_all_have_the_real_part_of_minus_one_half(size):
    eigenvalues = upper_eigenvalues(size)
    assert len(eigenvalues) == size // 2
    np.testing.assert_allclose(eigenvalues.real, -0.5, rtol=1e-10)


def test_inverse_frequencies_of_s4d_follow_the_law_of_those_of_hippo():
    size = 256
    legs = started(S4D, hidden_size=1, init="legs", state_size=size)["frequency"][0]
    inverse = started(S4D, hidden_size=1, init="inv", state_size=size)["frequency"][0, ::-1]
    assert legs[-1] == pytest.approx(size**2 / math.pi, rel=1e-4)
    np.testing.assert_allclose(inverse[-8:], legs[-8:], rtol=0.06)


def test_s4d_output_weights_and_skip_start_normal():
    weights = started(S4D, hidden_size=4000 // 32, state_size=64)
    for part in ("re", "im"):
        expect_normal(weights[f"output_weight_{part}"], 1 / 2)
    assert np.mean(weights["skip"] ** 2) == pytest.approx(1, rel=0.4)


# S5


@pytest.mark.parametrize(("size", "blocks"), [(2, 1), (64, 1), (64, 4), (12, 6)])
def test_s5_eigenvalues_start_as_those_of_hippo_in_blocks(size, blocks):
    weights = started(S5, hidden_size=3, state_size=size, init_blocks=blocks)
    np.testing.assert_allclose(np.exp(weights["log_decay"]), 0.5, rtol=1e-6)
    expected = np.tile(upper_eigenvalues(size // blocks).imag, blocks)
    np.testing.assert_allclose(weights["frequency"], expected, rtol=1e-6)


def test_s5_keeps_one_of_each_pair_of_eigenvalues_of_the_block_diagonal_matrix():
    size, blocks = 24, 3
    weights = started(S5, hidden_size=3, state_size=size, init_blocks=blocks)
    half = -np.exp(weights["log_decay"]) + 1j * weights["frequency"]
    found = np.linalg.eigvals(np.kron(np.eye(blocks), normal_part(size // blocks)))
    ours = np.concatenate((half, half.conj()))
    np.testing.assert_allclose(np.sort(ours.imag), np.sort(found.imag), rtol=1e-6)
    np.testing.assert_allclose(ours.real, found.real, rtol=1e-6)


@pytest.mark.parametrize(("hidden", "blocks", "modes"), [(5, 1, 3), (6, 1, 3), (7, 2, 4), (9, 3, 6)])
def test_s5_state_is_as_large_as_the_output_or_the_next_size_that_fits(hidden, blocks, modes):
    assert S5(hidden_size=hidden, init_blocks=blocks).state_shape == (modes,)


def test_s5_input_and_output_weights_start_as_large_as_before_their_turn():
    weights = started(S5, hidden_size=80, state_size=200, inputs=50)
    for part in ("re", "im"):
        expect_normal(weights[f"input_weight_{part}"], 1 / (2 * 50))
        expect_normal(weights[f"output_weight_{part}"], 1 / 200)


def test_turned_by_the_eigenvectors_of_hippo_real_normal_numbers_become_independent_complex_ones():
    size = 32
    eigenvalues, vectors = np.linalg.eigh(-1j * (normal_part(size) + np.eye(size) / 2))
    turn = vectors[:, eigenvalues > 0].conj().T
    parts = np.concatenate((turn.real, turn.imag))  # (2M, N): what they make of N real numbers
    np.testing.assert_allclose(parts @ parts.T, np.eye(size) / 2, atol=1e-10)
