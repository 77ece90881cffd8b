"""What a search looks for and how: search.json in its folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from rnnclf.durations import parse_time
from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.files import write_json
from rnnclf.tuning import space as spaces
from rnnclf.tuning.proposing import Sampler
from rnnclf.tuning.pruning import Rule
from rnnclf.tuning.space import Point, Space
from rnnclf.tuning.trials import Select
from rnnclf.workflows.runs import fits, read_json
from rnnclf.workflows.sweep_folder import search_record

TRIALS = 50  # if neither a number nor a budget is given
SEEDS = 5


@dataclass(frozen=True)
class Search:
    """A search: its words, and when it ends."""

    words: tuple[str, ...]
    """Those that hold for all trials, in Hydra's grammar."""
    space: Space
    trials: int | None = None
    """The most trials."""
    budget: str | None = None
    """The time of all trials together."""
    sampler: Sampler = "tpe"
    prune: Rule = "halving"
    seeds: int = SEEDS
    """How often the best point is trained at the end."""
    seed: int = 0
    """Of all trials, and of the points."""
    select: Select = "best"
    start: Point | None = None
    """The first point: nearest to the settings that one would have used without a search."""

    @property
    def seconds(self) -> float | None:
        """The budget in seconds."""
        return None if self.budget is None else parse_time(self.budget, "budget")

    def to_plain(self) -> dict[str, Any]:
        return {**asdict(self), "space": spaces.to_plain(self.space)}

    def write(self, folder: Path) -> None:
        write_json(search_record(folder), self.to_plain())


OWN: dict[str, tuple[Any, ...]] = {"sampler": get_args(Sampler), "prune": get_args(Rule)}
"""The words of a search that choose one of several, and the choices."""
NUMBERS = {"trials": 1, "seeds": 0}
"""Those that are numbers, and the least."""
KEYS = (*OWN, *NUMBERS, "budget")

FORM: dict[str, Any] = {
    **{"words": [str], "space": dict, "seeds": int, "seed": int},
    **{"sampler": str, "prune": str, "select": str},
}


def read_search(folder: Path) -> Search:
    """The search in a folder. Raises CheckpointError if the record is missing or damaged."""
    path = search_record(folder)
    found = read_json(path)
    if not fits(found, FORM) or found["select"] not in get_args(Select):
        raise CheckpointError(f"{path} is damaged: start another search.")
    space = spaces.from_plain(found["space"])
    words = [f"{key}={found[key]}" for key in KEYS if found.get(key) is not None]
    try:
        plain = found.get("start")
        start = None if plain is None else spaces.point_from_plain(plain, space)
        search = Search(tuple(found["words"]), space, seed=found["seed"], select=found["select"], start=start)
        return with_words(search, words)
    except ConfigError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def with_words(search: Search, words: list[str]) -> Search:
    """The search with some of KEYS changed by words such as trials=50. Raises ConfigError."""
    values = dict(word.split("=", 1) for word in words)
    for key, value in values.items():
        if key in OWN and value not in OWN[key]:
            raise ConfigError(f"{key} must be one of {', '.join(OWN[key])}, got '{value}'.")
    changes: dict[str, Any] = {key: value for key, value in values.items() if key not in NUMBERS}
    for key in NUMBERS.keys() & values.keys():
        changes[key] = _number(key, values[key])
    changed = replace(search, **changes)
    _ = changed.seconds  # raises ConfigError for a budget that is no time
    return changed


def _number(key: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) < 7 and int(value) >= NUMBERS[key]):
        raise ConfigError(f"{key} must be a whole number of at least {NUMBERS[key]}, got '{value}'.")
    return int(value)
