"""The words `seeds=8` and `folds=5`: one configuration, trained several times."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import NamedTuple

from rnnclf.errors import ConfigError
from rnnclf.hydra_app.grammar import meant

REPEATS = {"seeds": 1, "folds": 2}
"""The words of this kind, and the least number of runs of each."""
STANDS_FOR = {"seeds": ("seed",), "folds": ("dataset.folds", "dataset.fold")}
SWEEP_FLAGS = {"-m", "--multirun"}
JOBLIB = "hydra_plugins.hydra_joblib_launcher"


class Expanded(NamedTuple):
    """The flags and words of a command after `seeds` and `folds` were replaced, and a remark for the user."""

    flags: list[str]
    words: list[str]
    note: str | None = None


def is_repeat(word: str) -> bool:
    """Whether a word is seeds=N or folds=N."""
    return "=" in word and word.partition("=")[0].strip() in REPEATS


def expanded(flags: list[str], words: list[str]) -> Expanded:
    """A command with `seeds=8` as a sweep over seed=range(8), and `folds=5` as one over the folds.

    Unless the words choose a launcher or a number of threads, the runs are trained side by side, each on one
    thread, where the launcher for that is installed.

    Raises ConfigError.
    """
    if not any(map(is_repeat, words)):
        return Expanded(flags, words)
    replaced = ranges(words)
    flags = flags if SWEEP_FLAGS & {*flags} else [*flags, "-m"]
    if not _can_be_parallel(words):
        return Expanded(flags, replaced)
    if find_spec("hydra_plugins") is None or find_spec(JOBLIB) is None:
        return Expanded(
            flags, replaced, "one run after another: pip install 'rnnclf[launchers]' trains them side by side"
        )
    more = ["hydra/launcher=joblib", *(["threads=1"] if _value(words, "threads") is None else [])]
    return Expanded(flags, [*replaced, *more])


def ranges(words: list[str], first: bool = False) -> list[str]:
    """The words with a sweep over seeds or folds in place of `seeds` and `folds`, or with the `first` run.

    Raises ConfigError.
    """
    keys = [word.partition("=")[0].strip() for word in words]
    found = []
    for key, word in zip(keys, words, strict=True):
        if not is_repeat(word):
            found.append(word)
            continue
        if keys.count(key) > 1:
            raise ConfigError(f"{key} is given twice: leave one out.")
        if both := [other for other in STANDS_FOR[key] if other in keys]:
            raise ConfigError(f"{key} sets {both[0]} for each run: leave {both[0]} out.")
        number = _number(key, word.partition("=")[2].strip())
        if key == "folds":
            found.append(f"dataset.folds={number}")
        found.append(f"{STANDS_FOR[key][-1]}={'0' if first else f'range({number})'}")
    return found


def only_for_training(word: str) -> ConfigError:
    """The error for seeds=N or folds=N where there is only one run, as in `load_config`."""
    return ConfigError(f"'{word}' makes several runs: only rnnclf train takes it.")


def _number(key: str, value: str) -> int:
    least = REPEATS[key]
    if not re.fullmatch(r"\d{1,9}", value, re.ASCII) or int(value) < least:
        raise ConfigError(f"{key} must be a whole number of at least {least}, got '{meant(value)}'.")
    return int(value)


def _value(words: list[str], key: str) -> str | None:
    return next((word.partition("=")[2] for word in reversed(words) if word.startswith(f"{key}=")), None)


def _can_be_parallel(words: list[str]) -> bool:
    """Whether the runs can share this machine's cores: with one thread each, and not on one GPU."""
    if any(word.startswith(("hydra/launcher=", "hydra/sweeper=")) for word in words):
        return False
    if (os.cpu_count() or 1) < 2 or _value(words, "threads") not in (None, "1"):
        return False
    device = _value(words, "device") or "auto"
    if device != "auto":
        return device == "cpu"
    import torch

    return not (torch.cuda.is_available() or torch.backends.mps.is_available())
