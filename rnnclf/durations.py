"""How long something takes, as one types it: 20, '500 updates', 10m."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rnnclf.errors import ConfigError

PATIENCE = "a number of epochs such as 20, or of training steps such as '500 updates'"
TIME = "a time such as 30s, 10m or 1h"
_UNITS = {
    "s": ("seconds", 1),
    "m": ("seconds", 60),
    "h": ("seconds", 3600),
    "step": ("steps", 1),
    "update": ("steps", 1),
    "epoch": ("epochs", 1),
}


@dataclass(frozen=True)
class Duration:
    """In one of three units; the others are None. All are None for an interval of one epoch."""

    seconds: int | None = None
    steps: int | None = None
    epochs: int | None = None


def parse_patience(word: int | str) -> Duration:
    """Epochs or steps; a number alone means epochs. Raises ConfigError."""
    return _parsed("patience", word, ("epochs", "steps"), "epochs", PATIENCE)


def parse_time(word: str, key: str = "max_time") -> int:
    """The seconds of a time, the value of `key`. Raises ConfigError."""
    return _parsed(key, word, ("seconds",), "", TIME).seconds or 0


def parse_interval(word: str) -> Duration:
    """The interval between checkpoints, in seconds or steps; a number alone means steps.

    Raises ConfigError.
    """
    expected = "epoch, a time such as 30s, 5m or 1h, or a number of steps such as '200 steps'"
    if word == "epoch":
        return Duration()
    return _parsed("checkpoint.every", word, ("seconds", "steps"), "steps", expected)


def _parsed(key: str, word: int | str, kinds: tuple[str, ...], bare: str, expected: str) -> Duration:
    """A whole number of at least 1, and one of the units of `kinds`; without a unit, it is one of `bare`."""
    match = re.fullmatch(r"([1-9]\d{0,8}) ?([a-z]*)", str(word), re.ASCII)
    number, unit = (int(match[1]), match[2]) if match else (0, "none")
    singular = unit.removesuffix("s") if len(unit) > 1 else unit
    kind, factor = _UNITS.get(singular, ("", 0)) if unit else (bare, 1)
    if kind not in kinds:
        raise ConfigError(f"{key} must be {expected}, got '{word}'.")
    return Duration(**{kind: number * factor})


def seconds_in_words(seconds: float) -> str:
    if 0 < seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def roughly(seconds: float) -> str:
    """A rough time in words: 85 s, 85 min, 1.8 h, 30 h."""
    if round(seconds) < 100:
        return f"{seconds:.0f} s"
    if round(seconds / 60) < 100:
        return f"{seconds / 60:.0f} min"
    digits = 1 if seconds < 9.95 * 3600 else 0
    return f"{seconds / 3600:,.{digits}f}".removesuffix(".0") + " h"
