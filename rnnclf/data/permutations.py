"""The pixel permutations used in the literature. Torch-free.

Papers use different permutations for "permuted sequential MNIST"; accuracies under different ones are not
comparable.
"""

from __future__ import annotations

import re

from rnnclf.data.recordings import Array
from rnnclf.errors import ConfigError
from rnnclf.registry import did_you_mean

NAMES = ("none", "bitrev", "torch5544", "torch12008", "urnn92916")

_SEED = re.compile(r"seed:([0-9]{1,10})")


def refuse_unknown(name: str) -> None:
    """Raises ConfigError for a name that `permutation` does not support."""
    if name not in NAMES and _seed(name) is None:
        raise ConfigError(
            f"dataset.permutation must be {', '.join(NAMES)} or seed:N with N below 2³², got '{name}'."
            f"{did_you_mean(name, NAMES)}"
        )


def permutation(name: str, length: int) -> Array | None:
    """The index of the pixel at each of `length` steps, int64; None for 'none'. Raises ConfigError.

    bitrev: the bit reversals of 0, 1, 2 … up to the next power of two, without those past the last pixel;
        HiPPO (https://arxiv.org/abs/2008.07669), S4 (https://arxiv.org/abs/2111.00396), S5 and later work.
    torch5544: torch.randperm after torch.manual_seed(5544); UnICORNN (https://arxiv.org/abs/2103.05487),
        LEM (https://arxiv.org/abs/2110.04744).
    torch12008: the same after torch.manual_seed(12008); coRNN (https://arxiv.org/abs/2010.00951), Lipschitz
        RNN (https://arxiv.org/abs/2006.12070).
    urnn92916: numpy.random.RandomState(92916).permutation; full-capacity uRNN
        (https://arxiv.org/abs/1611.00035), scoRNN (https://arxiv.org/abs/1707.09520), expRNN
        (https://arxiv.org/abs/1901.08428).
    seed:N: numpy.random.RandomState(N).permutation.
    """
    import numpy as np

    refuse_unknown(name)
    if name == "none":
        return None
    if name == "bitrev":
        return _bit_reversal(length)
    if name.startswith("torch"):
        return _torch_randperm(int(name.removeprefix("torch")), length)
    seed = 92916 if name == "urnn92916" else _seed(name)
    return np.random.RandomState(seed).permutation(length).astype(np.int64)


def _seed(name: str) -> int | None:
    found = _SEED.fullmatch(name)
    return int(found[1]) if found and int(found[1]) < 2**32 else None


def _bit_reversal(length: int) -> Array:
    import numpy as np

    bits = (length - 1).bit_length()
    number = np.arange(1 << bits, dtype=np.int64)
    reversal = np.zeros_like(number)
    for bit in range(bits):
        reversal |= (number >> bit & 1) << (bits - 1 - bit)
    return reversal[reversal < length]


def _torch_randperm(seed: int, length: int) -> Array:
    """The result of torch.randperm on a CPU, without torch.

    Torch shuffles front to back: each element is swapped with itself or a later one, chosen by a word of the
    Mersenne Twister modulo the number left. NumPy's RandomState is the same generator with the same seeding.
    """
    import numpy as np

    words = np.random.RandomState(seed).randint(0, 2**32, size=length, dtype=np.uint32)
    order = np.arange(length, dtype=np.int64)
    for place, word in enumerate(words[:-1].tolist()):
        other = place + word % (length - place)
        order[place], order[other] = order[other], order[place]
    return order
