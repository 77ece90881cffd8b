"""Registries of components by name, with suggestions for misspelt names."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

from rnnclf.errors import ConfigError, UnknownNameError

T = TypeVar("T")

MANY = 20  # above this many names, a message with a suggestion does not list them all
PLUGGABLE = {"cell": "rnnclf.cells", "dataset": "rnnclf.datasets"}  # group: entry-point group of plugins


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is closest to `word`; None if none is close."""
    lowered = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean 'gru'?' for the closest known word, '' if none is close."""
    near = nearest(word, known)
    return f" Did you mean '{near}'?" if near else ""


class Registry(Generic[T]):
    """Entries of one kind, by their name on the command line."""

    def __init__(self, kind: str, entries: dict[str, T]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        hint = did_you_mean(name, self._entries)
        if hint and len(self._entries) > MANY:
            raise UnknownNameError(f"No {self.kind} named '{name}'.{hint} All: rnnclf list {self.kind}s.")
        known = ", ".join(self._entries)
        raise UnknownNameError(f"No {self.kind} named '{name}'.{hint} Known: {known}.")

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def names(self) -> list[str]:
        return list(self._entries)

    def items(self) -> list[tuple[str, T]]:
        return list(self._entries.items())

    def add(self, name: str, entry: T) -> None:
        """Adds a user's own entry. Raises ConfigError if the name belongs to a different entry."""
        if self._entries.get(name, entry) is not entry:
            raise ConfigError(f"There is already a {self.kind} named '{name}': choose another name.")
        self._entries[name] = entry
