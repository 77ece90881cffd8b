"""Names → entries, with a helpful miss."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

from rnnclf.errors import ConfigError, UnknownNameError

T = TypeVar("T")

MANY = 20  # names that a message may list beside a near one


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean 'gru'?' for the nearest known word, or nothing where none is near."""
    lowered = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f" Did you mean '{lowered[near[0]]}'?" if near else ""


class Registry(Generic[T]):
    """The entries of one kind, by the name that is used on the command line."""

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
        """Adds the user's own entry. A taken name raises ConfigError, unless it is the same entry."""
        if self._entries.get(name, entry) is not entry:
            raise ConfigError(f"There is a {self.kind} named '{name}' already: choose another name.")
        self._entries[name] = entry
