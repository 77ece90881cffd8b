"""Comparisons of pairs as text: the cells of their table, and what its columns mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rnnclf.workflows.compare import HOW, Comparison, Pair
from rnnclf.workflows.disagreement import Disagreement
from rnnclf.workflows.sweep_words import DIFFERENT

BASELINE = "a baseline knows no seed: its one run is compared with each run of the others"


def numbers_of(comparison: Comparison) -> dict[str, str]:
    """The contenders by name, numbered as in the table."""
    return {contender.name: str(number) for number, contender in enumerate(comparison.contenders, start=1)}


def has_chances(comparison: Comparison) -> bool:
    return any(pair.chances for pair in comparison.pairs)


def pair_columns(comparison: Comparison) -> list[str]:
    several = len(comparison.pairs) > 1
    chances = ["chances"] if has_chances(comparison) else []
    return [
        "pair",
        "difference",
        "95 % interval",
        "p, Holm" if several else "p",
        "verdict",
        *chances,
        "alone right",
    ]


def pair_cells(pair: Pair, names: Mapping[str, str], chances: bool) -> list[str]:
    """names: what stands for each contender."""
    first, second = names[pair.first], names[pair.second]
    found = pair.disagreement
    shown = "" if pair.chances is None else " / ".join(f"{100 * chance:.0f}" for chance in pair.chances)
    return [
        f"{first} – {second}",
        points(pair.difference),
        "" if pair.interval95 is None else " to ".join(map(points, pair.interval95)),
        "" if pair.adjusted_p is None else f"{pair.adjusted_p:.2g}",
        _verdict(pair, first, second),
        *([shown] if chances else []),
        "" if found is None else " / ".join(alone_right(found)),
    ]


def points(share: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * share:+.2f}"


def alone_right(found: Disagreement) -> tuple[str, str]:
    """How many sequences the first alone gets right, and the second alone, in each run."""
    return per_run(found.only_first, found), per_run(found.only_second, found)


def per_run(count: int, found: Disagreement) -> str:
    mean = count / found.pairs
    return f"{mean:.0f}" if found.pairs == 1 or mean >= 10 else f"{mean:.1f}"


def _verdict(pair: Pair, first: str, second: str) -> str:
    if pair.adjusted_p is None:
        return "too few"
    if pair.adjusted_p > DIFFERENT:
        return "not told apart"
    return f"{first if pair.difference > 0 else second} is better"


def pair_legend(
    comparison: Comparison, names: Mapping[str, str], equal: float | None = None
) -> Iterator[str]:
    """How the pairs were compared, and what the columns mean. names: as in `pair_cells`."""
    pairs = comparison.pairs
    yield "difference: test accuracy of the first minus that of the second, in percentage points"
    for how in dict.fromkeys(pair.how for pair in pairs):
        own = [pair for pair in pairs if pair.how == how]
        which = "" if len(own) == len(pairs) else f"{_listed(own, names)}: "
        about = "" if how == "few" else "p and interval: "
        yield f"{which}{about}{HOW[how]}"
    if any(pair.how in ("checkpoints", "recordings") for pair in pairs):
        yield "this is about two checkpoints, not two methods: to compare methods, train with seeds=5"
    if len(pairs) > 1:
        yield "p, Holm: corrected for the number of pairs; the intervals are not"
    if equal is not None and not has_chances(comparison):
        yield "equal= is about runs of several seeds or folds: it says nothing here"
    elif equal is not None:
        points = "1 point" if equal == 0.01 else f"{100 * equal:g} points"
        yield f"chances, in per cent: the first is better by more than {points} / neither is / the second is"
    if any(c.candidate.is_single_baseline for c in comparison.contenders) and len(pairs) > 1:
        yield BASELINE
    if found := [pair.disagreement for pair in pairs if pair.disagreement]:
        per = " (mean over the runs)" if any(each.pairs > 1 for each in found) else ""
        yield "alone right: sequences that only the first gets right / only the second" + per


def _listed(pairs: Sequence[Pair], names: Mapping[str, str]) -> str:
    return ", ".join(f"{names[pair.first]} – {names[pair.second]}" for pair in pairs)
