"""Data sets named by their path: recognised by looking at it, also as some of the data sets of a sweep."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from rnnclf.config_reading import escaped
from rnnclf.data import DATASETS, Source
from rnnclf.data.own import OwnData
from rnnclf.data.recognition import exists, source_for
from rnnclf.errors import ConfigError
from rnnclf.files import absolute
from rnnclf.hydra_app.grammar import FUNCTION, is_resolved, literal, meant, parse, parts

_source_of: dict[str, str] = {}
"""The names of data sets that were stored for a sweep, and their sources."""

Recorded = Mapping[str, Source]
"""The data sets of a recorded sweep, by the names that its words have for them."""


@dataclass
class _Entry:
    """A data set of the words: a name, or a path with the source that reads it."""

    name: str
    path: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """Options that other data sets of the sweep do not have."""

    @property
    def source(self) -> str:
        return source_for(self.path) if self.path is not None else self.name

    def accepts(self, option: str, recorded: Recorded) -> bool:
        if self.path is not None and option == "path":
            return False
        kind = type(recorded[self.name]) if self.name in recorded else dict(DATASETS.items()).get(self.source)
        if kind is None:  # a choice in a file of the user's
            return True
        return option in [known.name for known in fields(kind)] and option not in kind.WITHOUT


def is_own(name: str) -> bool:
    """Whether `dataset=name` reads the user's own data."""
    kind = dict(DATASETS.items()).get(_source_of.get(name, name))
    return kind is not None and issubclass(kind, OwnData)


def with_sources(
    words: list[str], paths: list[str], place: int, sweep: bool, recorded: Recorded
) -> tuple[list[str], list[str]]:
    """Overrides in which every data set that is named by its path has its source, and remarks for the user.

    Args:
        words: overrides in Hydra's grammar.
        paths: further words, which are paths; `place` is where they stood among `words`.
        sweep: whether the words may name several data sets.
    """
    for name, source in recorded.items():
        _store(name, _options(source))
    given = dict(word.split("=", 1) for word in words)
    if paths and "dataset.path" in given:
        raise ConfigError(f"'{paths[0]}' and dataset.path both name the data: leave one out.")
    if len(paths) > 1 and not sweep:
        raise ConfigError(f"These are {len(paths)} data sets: to train on each of them, add -m.")
    if paths and "dataset" in given:  # says how to read them
        return [*words, f"dataset.path={','.join(map(literal, paths))}"], []
    key, entries = ("", [_Entry(path, path) for path in paths]) if paths else _entries(given, recorded)
    if not entries:
        return words, []
    if key:
        place = next(number for number, word in enumerate(words) if word.startswith(f"{key}="))
        words = [word for word in words if not word.startswith(f"{key}=")]
    notes = [f"reading {entry.path} with dataset={entry.source}" for entry in entries if entry.path]
    before, after = words[:place], words[place:]
    if len(entries) > 1:
        before, after = (_share_options(part, entries, recorded) for part in (before, after))
        shared = [word for word in words if word not in (*before, *after)]
        notes += [f"{word} is for {_having(word, entries)} only" for word in shared]
    return [*before, *_words_of(entries, recorded), *after], notes


def _entries(given: Mapping[str, str], recorded: Recorded) -> tuple[str, list[_Entry]]:
    """The data sets that the overrides name, and the key that names them; none if it is left to Hydra."""
    key = "dataset" if "dataset" in given else "dataset.path"
    value = given.get(key, "")
    if not value or FUNCTION.fullmatch(value):
        return key, []
    names = [meant(part) for part in parts(value)]
    if key == "dataset":
        return key, [_Entry(name, name if _is_path(name, recorded) else None) for name in names]
    if "experiment" in given or value == "null" or is_resolved(value):
        return key, []
    return key, [_Entry(name, name) for name in names]


def _is_path(name: str, recorded: Recorded) -> bool:
    if name in DATASETS or name in recorded:
        return False
    return exists(name) or bool(re.search(r"[/\\~]|\.\w+$", name))


def _share_options(words: list[str], entries: list[_Entry], recorded: Recorded) -> list[str]:
    """Gives every option that only some of the data sets have to those; returns the other words.

    Raises ConfigError for such an option with several values: they would repeat the jobs of the others.
    """
    kept = []
    for word in words:
        key = word.partition("=")[0]
        having = [entry for entry in entries if entry.accepts(key.removeprefix("dataset."), recorded)]
        if not key.startswith("dataset.") or len(having) in (0, len(entries)):
            kept.append(word)
            continue
        override = parse(word)
        if override.is_sweep_override():
            lacking = next(entry for entry in entries if entry not in having)
            raise ConfigError(
                f"dataset={lacking.name} has no use for {key}, so its values cannot be part of this sweep:"
                f" {'name the files in dataset=' if key == 'dataset.path' else 'choose one of them'}."
            )
        for entry in having:
            entry.options[key.removeprefix("dataset.")] = override.value()
    return kept


def _having(word: str, entries: list[_Entry]) -> str:
    """The names of the data sets to which `_share_options` gave an option."""
    option = word.partition("=")[0].removeprefix("dataset.")
    return ", ".join(entry.name for entry in entries if option in entry.options)


def _words_of(entries: list[_Entry], recorded: Recorded) -> list[str]:
    """The words that choose these data sets."""
    source, paths = entries[0].source, [entry.path for entry in entries if entry.path is not None]
    if len(paths) == len(entries) and all(entry.source == source and not entry.options for entry in entries):
        return [f"dataset={source}", f"dataset.path={','.join(map(literal, paths))}"]
    taken = {*DATASETS, *recorded}
    names = []
    for entry in entries:
        name = entry.name
        if entry.path is not None or entry.options:
            name = _free_name(entry, taken)
            known = _options(recorded[entry.name]) if entry.name in recorded else {"name": entry.source}
            path = {} if entry.path is None else {"path": escaped(absolute(entry.path))}
            _store(name, {**known, **path, **entry.options})
        names.append(literal(name))
        taken.add(name)
    return [f"dataset={','.join(names)}"]


def _free_name(entry: _Entry, taken: set[str]) -> str:
    """A name for a data set that the grid, its tables and Hydra can handle."""
    path = entry.path or entry.options.get("path")
    if path is not None:
        name = re.sub(r"[^\w.+-]", "_", Path(str(path)).name)
    else:
        name = f"{entry.name}({' '.join(f'{key}={value}' for key, value in entry.options.items())})"
    numbered = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(other for other in numbered if other not in taken)


def _options(source: Source) -> dict[str, Any]:
    return {key: escaped(value) if isinstance(value, str) else value for key, value in asdict(source).items()}


def _store(name: str, options: Mapping[str, Any]) -> None:
    """Makes `dataset=name` choose the source options["name"] with these options."""
    _source_of[name] = str(options["name"])
    node = {
        "defaults": [f"/schema/dataset/{options['name']}@_here_", "_self_"],
        **{key: value for key, value in options.items() if key != "name"},
    }
    ConfigStore.instance().store(group="dataset", name=name, node=node, provider="rnnclf")
