"""Permutations of pixels: each is the one that its papers' code draws, recomputed here another way."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from rnnclf.data.permutations import NAMES, permutation
from rnnclf.errors import ConfigError

SHA256_AT_784 = {
    "bitrev": "30d91dc29f161321971bfea6ba16c735e4b5fe678d607efb470896d9de75ef44",
    "torch5544": "88c77bc3e243c77bfa408d541c47529b0f18e4330833e084f860a8978f5465d7",
    "torch12008": "f4113bc8ae78902146fba54feaff34c7de185249d3b85ce9584e3d76ca98b3bd",
    "urnn92916": "96240fe27409981c3ed3e92c20d995f7103a94c2282307bc776923030113be74",
}


def recomputed(name: str, length: int) -> list[int]:
    if name == "bitrev":
        bits = len(bin(length - 1)) - 2
        words = [format(number, f"0{bits}b")[::-1] for number in range(2**bits)]
        return [int(word, 2) for word in words if int(word, 2) < length]
    if name == "urnn92916":
        return np.random.RandomState(92916).permutation(length).tolist()
    torch.manual_seed(int(name.removeprefix("torch")))
    return torch.randperm(length).tolist()


@pytest.mark.parametrize("name", SHA256_AT_784)
def test_a_named_permutation_of_784_pixels_is_the_published_one(name):
    expected = np.array(recomputed(name, 784), dtype="<i8")
    assert np.array_equal(permutation(name, 784), expected)
    assert hashlib.sha256(expected.tobytes()).hexdigest() == SHA256_AT_784[name]


@pytest.mark.parametrize("seed", [5544, 12008])
@pytest.mark.parametrize("length", [1, 2, 3, 64, 1000, 1024, 20_000])
def test_torch_draws_the_same_for_every_length(seed, length):
    assert permutation(f"torch{seed}", length).tolist() == recomputed(f"torch{seed}", length)


def test_bits_are_reversed_and_places_beyond_the_end_left_out():
    assert permutation("bitrev", 8).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]
    assert permutation("bitrev", 6).tolist() == [0, 4, 2, 1, 5, 3]
    assert permutation("bitrev", 1).tolist() == [0]


@pytest.mark.parametrize("length", [1, 2, 64, 784, 1024])
@pytest.mark.parametrize("name", [*NAMES[1:], "seed:0", "seed:4294967295"])
def test_every_pixel_is_shown_once(name, length):
    order = permutation(name, length)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(length))


def test_a_seed_is_numpys():
    assert permutation("seed:7", 30).tolist() == np.random.RandomState(7).permutation(30).tolist()
    assert permutation("none", 30) is None


@pytest.mark.parametrize(
    "name",
    ["seed:", "seed:-1", "seed:4294967296", "seed: 3", "seed:3.0", "seed:３", "SEED:3", "", "bitreverse"],
)
def test_an_unknown_permutation_is_refused(name):
    with pytest.raises(ConfigError, match=r"bitrev, torch5544, torch12008, urnn92916 or seed:N with N below"):
        permutation(name, 4)


def test_a_near_miss_is_guessed():
    with pytest.raises(ConfigError, match="Did you mean 'bitrev'"):
        permutation("bitrv", 4)


def test_pictures_are_read_and_permuted_without_torch():
    code = (
        "import sys; from rnnclf.data.images import Digits;"
        "Digits(sequence='pixels', permutation='torch5544').read(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
