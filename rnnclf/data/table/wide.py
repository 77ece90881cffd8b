"""Tables with a row for each sequence: which column is which step of which channel. Torch-free.

Shapes: T steps, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rnnclf.errors import ConfigError, DataError

STEP = re.compile(r"(.*[^\W\d_].*?)(?:[_.](\d{1,9})|\[(\d{1,9})\])$")  # ax_0, ax.0, ax[0]
STEP_FIRST = re.compile(r"(\D*)(\d{1,9})[_.](.*[^\W\d_].*)$")  # t0_ax, 0_ax
NUMBERED = re.compile(r"(.*?)(\d{1,9})$")  # t0, t1 …, the steps of one channel; x0 … y0 …, of several

Steps = tuple[tuple[str, ...], ...]


def places(columns: Sequence[str]) -> dict[str, tuple[str, int]]:
    """The channel and step of each column whose name has both; none if they are steps of one channel."""
    if found := {name: (m[1], int(m[2] or m[3])) for name in columns if (m := STEP.fullmatch(name))}:
        return found
    parts = {name: m for name in columns if (m := STEP_FIRST.fullmatch(name))}
    stems, numbers = {m[1] for m in parts.values()}, {m[2] for m in parts.values()}
    if len(stems) == 1 and len(numbers) > 1:
        return {name: (m[3], int(m[2])) for name, m in parts.items()}
    stems_of = _stems(columns)
    several = [stem for stem, steps in stems_of.items() if len(steps) > 1 and stem]
    if len(several) < 2:
        return {}
    return {name: (stem, step) for stem in several for step, name in stems_of[stem].items()}


def numbered(columns: Sequence[str]) -> set[str]:
    """The columns that are numbered like steps, if that is most of them."""
    found = set(places(columns))
    if not found:
        largest = max(_stems(columns).values(), key=len, default={})
        found = set(largest.values()) if len(largest) > 2 else set()
    return found if len(found) * 2 > len(columns) else set()


def _stems(columns: Sequence[str]) -> dict[str, dict[int, str]]:
    stems: dict[str, dict[int, str]] = {}
    for name in columns:
        if match := NUMBERED.fullmatch(name):
            stems.setdefault(match[1], {})[int(match[2])] = name
    return stems


def in_order(table: str, chosen: list[str]) -> list[str]:
    """The columns of the steps of one channel, by number if that is what tells their names apart.

    Raises ConfigError for a column that is no step among others that are.
    """
    found = {name: match for name in chosen if (match := NUMBERED.fullmatch(name))}
    steps = numbered(chosen)
    if not steps and (len({match[1] for match in found.values()}) != 1 or len(found) * 2 <= len(chosen)):
        return chosen
    if other := [name for name in chosen if name not in (steps or found)]:
        example = next(name for name in chosen if name in (steps or found))
        raise ConfigError(
            f"{table}: column '{example}' is a step, '{other[0]}' is not. List the columns"
            " of the steps in dataset.channels."
        )
    return sorted(chosen, key=lambda name: int(found[name][2]))


def by_number(
    table: str, wanted: Sequence[str], found: dict[str, tuple[str, int]]
) -> tuple[tuple[str, ...], Steps]:
    """The channels, those in `wanted` first, and the columns of each step. Raises DataError for a gap."""
    present = dict.fromkeys(channel for channel, _ in found.values())
    channels = tuple(dict.fromkeys([*(name for name in wanted if name in present), *present]))
    column_of = {place: name for name, place in found.items()}
    steps = sorted({step for _, step in column_of})
    for name, place in found.items():
        if column_of[place] != name:
            raise DataError(f"{table}: columns '{name}' and '{column_of[place]}' are the same step.")
    for channel in channels:
        for step in steps:
            if (channel, step) not in column_of:
                raise DataError(
                    f"{table}: channel '{channel}' has no column for step {step}, but others have."
                    " List the channels to read in dataset.channels."
                )
    return channels, tuple(tuple(column_of[channel, step] for channel in channels) for step in steps)
