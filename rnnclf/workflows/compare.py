"""Which of several trained models, or methods, is better: by how much, how sure that is, and where they
differ. Prints nothing, imports no torch.

Shapes: D data sets, M contenders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product
from pathlib import Path
from statistics import fmean
from typing import Any

from rnnclf.errors import ConfigError
from rnnclf.registry import did_you_mean
from rnnclf.statistics import (
    LEAST_RUNS,
    Difference,
    Ranks,
    crossed,
    holm,
    improvement,
    mcnemar_p,
    paired,
    paired_interval,
    paired_p,
    ranks_over_data,
    unpaired,
)
from rnnclf.workflows.contenders import (
    Contender,
    Contest,
    Found,
    FoundRun,
    contests,
    find_runs,
    names_of,
    refuse_no_run,
    titles,
)
from rnnclf.workflows.disagreement import (
    Answers,
    Disagreement,
    differences,
    disagreement,
    has_windows,
)
from rnnclf.workflows.search.standing import what_stands

Repeat = tuple[int, int]  # a seed and a fold

MOST_FOR_ALL_PAIRS = 10  # contenders; of more, each is compared with the first alone

HOW = {
    "checkpoints": "two checkpoints, by McNemar's exact test on the sequences that they classify differently",
    "recordings": "two checkpoints, over the recordings of the test windows, as if drawn anew (t test)",
    "sequences": "over common seeds and over test sequences, as if both were drawn anew",
    "seeds": "over common seeds (paired t test)",
    "folds": "over common folds, which share sequences in training (corrected paired t test)",
    "unpaired": "over different seeds (Welch's t test)",
    "few": f"too few: it takes {LEAST_RUNS} runs to tell",
}
"""How two are compared, and for the user what p and interval are about."""


@dataclass(frozen=True)
class Pair:
    """Two contenders, the first of which has the better validation accuracy."""

    first: str
    second: str
    how: str
    """How they were compared, a key of HOW."""
    runs: tuple[int, int]
    """The number of runs of each that the comparison is about."""
    difference: float
    """Of the test accuracies, in favour of the first."""
    interval95: tuple[float, float] | None = None
    p: float | None = None
    adjusted_p: float | None = None
    """The p with Holm's correction for all pairs on the same data."""
    improvement: float | None = None
    """The probability that a run of the first has a higher test accuracy than one of the second."""
    chances: tuple[float, float, float] | None = None
    """The probabilities that the first is better, that they are equal, and that the second is better, if it
    was said what counts as equal."""
    disagreement: Disagreement | None = None
    """None if the predictions of a run are missing."""


@dataclass(frozen=True)
class Comparison:
    """The contenders on the same data, best validation accuracy first, and each pair of them."""

    title: str
    """What tells the data from the others."""
    contest: Contest
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    """What could not be done and what to do about it, as sentences for the user."""

    @property
    def contenders(self) -> tuple[Contender, ...]:
        return self.contest.contenders

    def to_dict(self) -> dict[str, Any]:
        judged = self.contest.judged
        return {
            **{"data": judged.data, "protocol": judged.protocol, "permutation": judged.permutation},
            "fingerprint": judged.fingerprint,
            "title": self.title,
            "configurations": [{"name": c.name, **c.candidate.to_dict()} for c in self.contenders],
            "pairs": [asdict(pair) for pair in self.pairs],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class AcrossData:
    """The methods that were trained on all of several data sets."""

    data: tuple[str, ...]
    methods: tuple[str, ...]
    accuracies: tuple[tuple[float, ...], ...]
    """The mean test accuracy of each method on each data set, (D, M)."""
    ranks: Ranks
    left_out: int
    """The number of configurations that were not trained on all of them."""

    def to_dict(self) -> dict[str, Any]:
        ranks = asdict(self.ranks)
        ranks["pairs"] = [
            {"first": self.methods[i], "second": self.methods[j], "adjusted_p": p}
            for (i, j), p in self.ranks.pairs.items()
        ]
        ranks["groups"] = [[self.methods[m] for m in group] for group in self.ranks.groups]
        return {
            **{"data": list(self.data), "methods": list(self.methods), "accuracies": self.accuracies},
            **{"ranks": ranks, "left_out": self.left_out},
        }


@dataclass(frozen=True)
class Compared:
    """Everything that `rnnclf compare` found."""

    sections: tuple[Comparison, ...]
    across: AcrossData | None
    equal: float | None
    """What counts as equal, a difference of accuracies."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            **{"equal": self.equal, "sections": [section.to_dict() for section in self.sections]},
            "across_data": None if self.across is None else self.across.to_dict(),
            "notes": list(self.notes),
        }


def equal_of(words: Sequence[str]) -> float | None:
    """What counts as equal, from the words of the command: equal=0.5 is half a percentage point.

    Raises ConfigError.
    """
    value: float | None = None
    for word in words:
        key, _, text = word.partition("=")
        if key != "equal":
            hint = did_you_mean(key, ["equal"])
            raise ConfigError(f"'{word}' is neither a path nor equal=POINTS.{hint}")
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < 100:
            raise ConfigError(f"equal must be a number of percentage points such as 0.5, got '{text}'.")
    return None if value is None else value / 100


def compare(paths: Sequence[Path], equal: float | None = None) -> Compared:
    """Compares the runs below these paths: run folders, checkpoints, sweep folders.

    Runs that differ in the seed, the fold or circumstances alone are one contender; if all are, each path is.
    equal: the difference of accuracies that counts as none.
    Raises CheckpointError for a path without a run, ConfigError if a path has nothing to be compared with.
    """
    for path in paths:
        refuse_no_run(path)
    found = find_runs(paths)
    for path in paths:
        if not any(path in run.paths for run in found.runs):
            raise ConfigError(f"{path} holds no finished run.")
    apart = len(paths) > 1 and len({run.key for run in found.runs}) == 1
    found_contests = contests(found, apart)
    _refuse_lonely(paths, found_contests)
    notes = (*what_stands(paths), *_notes(found, found_contests))
    return Compared(_comparisons(found_contests, equal), across_data(found_contests), equal, notes)


def compared_within(path: Path) -> tuple[Comparison, ...]:
    """The comparisons of the configurations below one path; none where there is only one."""
    return _comparisons(contests(find_runs([path])), None)


def _comparisons(found_contests: Sequence[Contest], equal: float | None) -> tuple[Comparison, ...]:
    answers = Answers()
    named = zip(titles([contest.judged for contest in found_contests]), found_contests, strict=True)
    return tuple(_comparison(name, c, answers, equal) for name, c in named if len(c.contenders) > 1)


def _notes(found: Found, found_contests: Sequence[Contest]) -> list[str]:
    notes = []
    if found.unfinished:
        notes.append(f"{_runs(found.unfinished)} not done: left out.")
    if replaced := sum(contest.replaced for contest in found_contests):
        notes.append(f"{_runs(replaced)} left out: a newer one has the same configuration and seed.")
    for contest in found_contests:
        if len(contest.contenders) == 1:
            name = contest.contenders[0].name
            notes.append(f"On {contest.judged.title} there is {name} alone: nothing to compare.")
    return notes


def _runs(n: int) -> str:
    return "1 run is" if n == 1 else f"{n} runs are"


def _refuse_lonely(paths: Sequence[Path], found_contests: Sequence[Contest]) -> None:
    """Raises ConfigError if the runs of a path were not judged as those of any other configuration were."""
    judged = {
        path: [c for c in found_contests if any(path in run.paths for run in _all_runs(c))] for path in paths
    }
    for path, own in judged.items():
        if any(len(contest.contenders) > 1 for contest in own):
            continue
        others = [(p, c) for p, cs in judged.items() if p != path for c in cs if c not in own]
        if not others:
            name = own[0].contenders[0].name
            what = (
                f"a single configuration, {name}"
                if len(own) == 1
                else "no two configurations on the same data"
            )
            raise ConfigError(f"{path} holds {what}: name another run or sweep to compare it with.")
        for other, contest in others:
            if words := own[0].judged.unlike(contest.judged):
                raise ConfigError(
                    f"{path} cannot be compared with {other}: one has {words[0]}, the other {words[1]}."
                )


def _all_runs(contest: Contest) -> list[FoundRun]:
    return [run for contender in contest.contenders for run in contender.runs.values()]


def _comparison(title: str, contest: Contest, answers: Answers, equal: float | None) -> Comparison:
    contenders = contest.contenders
    if len(contenders) <= MOST_FOR_ALL_PAIRS:
        chosen = list(combinations(contenders, 2))
    else:
        chosen = [(contenders[0], other) for other in contenders[1:]]
    pairs = [_pair(one, other, answers, equal) for one, other in chosen]
    adjusted = holm([pair.p for pair in pairs])
    pairs = [replace(pair, adjusted_p=p) for pair, p in zip(pairs, adjusted, strict=True)]
    return Comparison(title, contest, tuple(pairs), tuple(_gaps(contest, answers)))


def _gaps(contest: Contest, answers: Answers) -> list[str]:
    """A sentence about runs whose predictions are missing."""
    missing = [run.folder.path for run in _all_runs(contest) if answers.of(run.folder) is None]
    if not missing:
        return []
    if len(missing) == 1:
        return [
            f"{missing[0]} has no predictions of its test sequences, so it is not told where it differs:"
            f" rnnclf eval {missing[0]} makes them."
        ]
    return [
        f"{len(missing)} runs have no predictions of their test sequences, so it is not told where they"
        f" differ: rnnclf eval {missing[0]} makes them for one."
    ]


def _pair(one: Contender, other: Contender, answers: Answers, equal: float | None) -> Pair:
    """`adjusted_p` is still to be computed."""
    single = len(one.runs) == len(other.runs) == 1
    repeats = _repeats(one, other, single)
    folders = [(one.runs[mine].folder, other.runs[theirs].folder) for mine, theirs in repeats]
    answered = answers.pairs(folders) if folders else None
    found = disagreement(answered) if answered else None
    mine, theirs = (
        [run.row.accuracy("test") for run in contender.runs.values()] for contender in (one, other)
    )
    matched = [one.runs[a].row.accuracy("test") - other.runs[b].row.accuracy("test") for a, b in repeats]
    pair = Pair(
        first=one.name,
        second=other.name,
        how="few",
        runs=(len(mine), len(theirs)),
        difference=fmean(mine) - fmean(theirs),
        disagreement=found,
    )
    if single:
        windows = differences(answered) if answered and has_windows(answered) else None
        return _of_checkpoints(pair) if windows is None else _of_windows(pair, paired(windows[0].tolist()))
    if one.candidate.folds is not None:
        how, difference = "folds", paired(matched, one.candidate.folds)
    elif len(matched) >= LEAST_RUNS:
        rows = differences(answered) if answered else None
        how, difference = ("seeds", paired(matched)) if rows is None else ("sequences", crossed(rows))
    else:
        how, difference = "unpaired", unpaired(mine, theirs)
    if difference is None:
        return pair
    n = len(matched)
    return replace(
        pair,
        how=how,
        runs=pair.runs if how == "unpaired" else (n, n),
        difference=difference.mean,
        interval95=None if difference.is_sure else difference.interval95,
        p=paired_p(matched, one.candidate.folds) if how in ("seeds", "folds") else difference.p,
        improvement=improvement(mine, theirs),
        chances=None if equal is None or difference.is_sure else difference.chances(equal),
    )


def _repeats(one: Contender, other: Contender, single: bool) -> list[tuple[Repeat, Repeat]]:
    """The pairs of runs to compare."""
    if single or one.candidate.is_single_baseline or other.candidate.is_single_baseline:
        return list(product(one.runs, other.runs))
    return [(repeat, repeat) for repeat in sorted(one.runs.keys() & other.runs.keys())]


def _of_checkpoints(pair: Pair) -> Pair:
    found = pair.disagreement
    if found is None:
        return pair
    counts = found.both, found.only_first, found.only_second, found.neither
    return replace(
        pair,
        how="checkpoints",
        interval95=paired_interval(*counts),
        p=mcnemar_p(found.only_first, found.only_second),
    )


def _of_windows(pair: Pair, difference: Difference | None) -> Pair:
    """difference: over recordings."""
    if difference is None or difference.is_sure:
        return pair
    return replace(pair, how="recordings", interval95=difference.interval95, p=difference.p)


def across_data(found_contests: Sequence[Contest]) -> AcrossData | None:
    """The methods that are there on all data sets; None if there are fewer than two of either."""
    tables: list[dict[str, Contender]] = [
        {_method(contender): contender for contender in contest.contenders} for contest in found_contests
    ]
    if len(tables) < 2:
        return None
    methods = [key for key in tables[0] if all(key in table for table in tables[1:])]
    if len(methods) < 2:
        return None
    import numpy as np

    first = [next(iter(tables[0][key].runs.values())).options for key in methods]
    accuracies = [[table[key].candidate.accuracy for key in methods] for table in tables]
    return AcrossData(
        data=tuple(titles([contest.judged for contest in found_contests])),
        methods=tuple(names_of([_without_data(options) for options in first])),
        accuracies=tuple(map(tuple, accuracies)),
        ranks=ranks_over_data(np.array(accuracies)),
        left_out=len({key for table in tables for key in table} - {*methods}),
    )


def _method(contender: Contender) -> str:
    options = _without_data(next(iter(contender.runs.values())).options)
    return repr(sorted(options.items()))


def _without_data(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if not key.startswith("dataset.")}
