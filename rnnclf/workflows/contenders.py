"""The finished runs below some paths, as configurations that can be compared: on the same sequences, read in
the same way, by the same protocol. Prints nothing, imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rnnclf.data import DATASETS
from rnnclf.data.splits import SPLITTING
from rnnclf.errors import CheckpointError, RnnclfError
from rnnclf.workflows.places import places_below
from rnnclf.workflows.runs import RunFolder, evaluation_record, fits, read_json, run_of
from rnnclf.workflows.sweep import Candidate, SweepRow, by_validation, pooled_of, row_of
from rnnclf.workflows.sweep_folder import jobs_of

CIRCUMSTANCES = (
    *("threads", "device", "engine", "checkpoint", "graph", "diagnose", "plots", "plugins"),
    "name",
)
"""The keys that say how a run was computed or what it is called, not what it computed."""
CHOICES = ("cell", "optimizer", "schedule", "dataset", "augment", "average")
"""The keys whose value is a choice with options of its own."""


@dataclass(frozen=True)
class Judged:
    """What has to be the same for two accuracies to be comparable."""

    dataset: str = field(compare=False)
    data: str = field(compare=False)
    """The name of the data in tables, which may differ where the data are the same."""
    fingerprint: str
    """Of the content of the data; their name if that is not recorded."""
    reading: str
    """How the data are read, as JSON."""
    splits: str
    """How they are divided, as JSON."""
    protocol: str

    @property
    def title(self) -> str:
        return f"{self.data}, tutorial protocol" if self.protocol == "tutorial" else self.data

    @property
    def permutation(self) -> str | None:
        """The order of the pixels; None for data that are no pictures."""
        value = json.loads(self.reading).get("permutation")
        return str(value) if value is not None else None

    def unlike(self, other: Judged) -> tuple[str, str] | None:
        """The first difference, said of this and of the other; None if there is none."""
        if self.protocol != other.protocol:
            return f"the {self.protocol} protocol", f"the {other.protocol} protocol"
        if self.dataset == other.dataset and (words := _different(self.reading, other.reading)):
            return words
        if self.data != other.data:
            return f"the data {self.data}", f"the data {other.data}"
        if self.fingerprint != other.fingerprint:
            return f"data with checksum {self.fingerprint[:8]}", f"data with checksum {other.fingerprint[:8]}"
        return _different(self.reading, other.reading) or _different(self.splits, other.splits)


def titles(all_judged: Sequence[Judged]) -> list[str]:
    """A title for each: the data, with the splits where others on the same data have different ones."""
    found = []
    for judged in all_judged:
        alike = [json.loads(other.splits) for other in all_judged if other.title == judged.title]
        own = json.loads(judged.splits)
        keys = [key for key in own if any(other.get(key) != own[key] for other in alike)]
        found.append(", ".join([judged.title, *(f"dataset.{key}={as_typed(own[key])}" for key in keys)]))
    return found


def _different(one: str, other: str) -> tuple[str, str] | None:
    """The first option that differs between two as JSON, in words; None if there is none."""
    mine, theirs = json.loads(one), json.loads(other)
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) != theirs.get(key):
            return f"dataset.{key}={as_typed(mine.get(key))}", f"dataset.{key}={as_typed(theirs.get(key))}"
    return None


@dataclass(frozen=True)
class FoundRun:
    """A finished run."""

    folder: RunFolder
    row: SweepRow
    judged: Judged
    options: dict[str, Any]
    """Its configuration as a flat dictionary, without what does not tell methods apart: seed, fold,
    circumstances, and what is in `judged`."""
    started: float
    paths: tuple[Path, ...]
    """The paths at or below which it was found."""

    @property
    def key(self) -> str:
        return json.dumps(self.options, sort_keys=True)

    @property
    def repeat(self) -> tuple[int, int]:
        """Its seed and its fold."""
        return self.row.seed or 0, self.row.fold or 0


@dataclass(frozen=True)
class Contender:
    """A configuration and its runs, wherever they lie."""

    name: str
    """What tells it from the others, as words; its path if the configurations are the same."""
    candidate: Candidate
    runs: dict[tuple[int, int], FoundRun]
    """Its runs by seed and fold."""


@dataclass(frozen=True)
class Contest:
    """The contenders that were judged on the same sequences, best validation accuracy first."""

    judged: Judged
    contenders: tuple[Contender, ...]
    replaced: int
    """The number of runs that are left out because a newer one has the same configuration, seed and fold."""


@dataclass(frozen=True)
class Found:
    """All finished runs below some paths, and what was left out."""

    runs: tuple[FoundRun, ...]
    unfinished: int = 0
    """The number of runs that are not done."""


def find_runs(paths: Iterable[Path], trials: bool = False) -> Found:
    """The finished runs below these paths: folders of runs or sweeps, checkpoints, folders of such.

    trials: whether all trials of a search are wanted, not only the runs that stand for it.
    """
    found: dict[Path, FoundRun] = {}
    unfinished: set[Path] = set()
    for path in paths:
        for folder in runs_below(path, trials):
            place = folder.path.resolve()
            if place in found:
                found[place] = replace(found[place], paths=(*found[place].paths, path))
            elif (run := _found(folder, len(found), path)) is not None:
                found[place] = run
            else:
                unfinished.add(place)
    return Found(tuple(found.values()), len(unfinished))


def runs_below(path: Path, trials: bool = False) -> Iterator[RunFolder]:
    """The run folders at a path and below it, those of the jobs of sweeps and those that stand for searches
    among them; trials: all trials of searches instead."""
    if path.is_file():
        if (run := run_of(path)) is not None:
            yield run
        return
    for place in places_below(path):
        if place.kind == "sweep" or (place.kind == "search" and trials):
            yield from jobs_of(place.path)
        elif place.kind == "search":
            yield from _of_search(place.path)
        elif place.kind != "evaluation":
            yield RunFolder(place.path)


def _of_search(folder: Path) -> Sequence[RunFolder]:
    from rnnclf.workflows.search.standing import runs_of_search

    try:
        return runs_of_search(folder)
    except RnnclfError:  # no trial is done, or its record is damaged, which `rnnclf runs` shows
        return ()


def refuse_no_run(path: Path) -> None:
    """Raises CheckpointError if there cannot be a run at this path."""
    kinds = "give the folder of a run or a sweep, or a checkpoint in the folder of its run"
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: {kinds}.")
    if path.is_file() and run_of(path) is None:
        raise CheckpointError(f"{path} is not the best checkpoint of a run: {kinds}.")
    if path.is_dir() and evaluation_record(path).is_file():
        raise CheckpointError(f"{path} holds an evaluation: {kinds}.")


def _found(folder: RunFolder, number: int, path: Path) -> FoundRun | None:
    """number: to call it by; None if the run is not done."""
    row = row_of(RunFolder(folder.path, number), {})
    if not row.done:
        return None
    status = folder.read_status()
    configuration = status.get("configuration")
    plain = _flat(configuration if isinstance(configuration, dict) else {})
    reading, results = row.results.get("reading"), row.results
    judged = Judged(
        dataset=str(results["dataset"]),
        data=str(results.get("data", results["dataset"])),
        fingerprint=str(read_json(folder.provenance).get("data_fingerprint", results["dataset"])),
        reading=json.dumps(reading if isinstance(reading, dict) else {}, sort_keys=True),
        splits=json.dumps(
            {k: plain.get(f"dataset.{k}") for k in SPLITTING if k != "fold" and f"dataset.{k}" in plain}
        ),
        protocol=str(results.get("protocol", "standard")),
    )
    started = status.get("started", 0.0)
    return FoundRun(folder, row, judged, _options(plain, results), started, (path,))


def _flat(plain: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A nested configuration by keys as one types them; the name of a choice by the key of its group."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{above}{key}.")
        elif key == "name" and above[:-1] in CHOICES:
            found[above[:-1]] = value
        else:
            found[f"{above}{key}"] = value
    return found


def _options(plain: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    if "baseline" in results:
        return {"baseline": results["baseline"]}
    places = {key for _, kind in DATASETS.items() for key in kind.LOCATIONS}
    data = {f"dataset.{key}" for key in {*places, *SPLITTING, "root"}}
    left = {*data, *CIRCUMSTANCES, "seed", "dataset", "protocol", "cell.hidden_size"}
    found = {key: value for key, value in plain.items() if key not in left and key.split(".")[0] not in left}
    return found | {
        key: value for key, value in plain.items() if key.startswith("dataset.") and key not in left
    }


def contests(found: Found, apart: bool = False) -> tuple[Contest, ...]:
    """The contenders by what they were judged on.

    apart: the runs of each path are a contender, whatever their configuration.
    """
    groups: dict[Judged, dict[str, list[FoundRun]]] = {}
    for run in found.runs:
        groups.setdefault(run.judged, {}).setdefault(str(run.paths[0]) if apart else run.key, []).append(run)
    return tuple(_contest(judged, members, apart) for judged, members in groups.items())


def _contest(judged: Judged, members: dict[str, list[FoundRun]], apart: bool) -> Contest:
    groups = [_without_older(runs) for runs in members.values()]
    names = list(members) if apart else names_of([runs[0].options for runs in groups])
    candidates = []
    for name, runs in zip(names, groups, strict=True):
        rows = tuple(run.row for run in runs)
        pooled, _ = pooled_of(rows, {run.row.job: run.folder.predictions for run in runs})
        candidates.append(Candidate((name,), rows, pooled))
    runs_of = {name: {run.repeat: run for run in runs} for name, runs in zip(names, groups, strict=True)}
    ranked = by_validation(candidates)
    replaced = sum(map(len, members.values())) - sum(map(len, groups))
    contenders = tuple(Contender(c.words[0], c, runs_of[c.words[0]]) for c in ranked)
    return Contest(judged, contenders, replaced)


def _without_older(runs: Sequence[FoundRun]) -> list[FoundRun]:
    """The newest run of each seed and fold."""
    newest: dict[tuple[int, int], FoundRun] = {}
    for run in sorted(runs, key=lambda run: run.started):
        newest[run.repeat] = run
    return [newest[repeat] for repeat in sorted(newest)]


def names_of(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """The words in which each configuration differs from another one; those of a choice, such as an option of
    a cell, only where there are others with the same choice."""
    keys = list(dict.fromkeys(key for each in options for key in each))
    names = [
        " ".join(f"{key}={as_typed(own[key])}" for key in keys if _tells(key, own, options))
        or " ".join(f"{key}={as_typed(own[key])}" for key in ("cell", "baseline", "hidden") if key in own)
        or "all"
        for own in options
    ]
    # runs of other versions may differ in a key that one of them does not have
    return [
        name if (number := names[:place].count(name)) == 0 else f"{name} ({number + 1})"
        for place, name in enumerate(names)
    ]


def _tells(key: str, own: Mapping[str, Any], options: Sequence[Mapping[str, Any]]) -> bool:
    if key not in own:
        return False
    choice = "init" if key == "init_sha256" else key.rpartition(".")[0]
    like = [each for each in options if key in each and each.get(choice) == own.get(choice)]
    if key in ("cell", "baseline"):
        like = list(options)
    return any(each.get(key) != own[key] for each in like)


def as_typed(value: Any) -> str:
    """A value as one types it on the command line."""
    if value is None or isinstance(value, bool | list | dict):
        return json.dumps(value, separators=(",", ":"))
    return f"{value:g}" if isinstance(value, float) and fits(value, float) else str(value)
