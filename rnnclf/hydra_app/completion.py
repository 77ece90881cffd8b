"""Completions for `rnnclf train <TAB>`: flags, groups, keys and values. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import Field, fields
from functools import cached_property
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from rnnclf.config import GROUPS, NESTED, Config
from rnnclf.errors import RnnclfError
from rnnclf.files import paths_starting
from rnnclf.hydra_app.bridge import INFO_FLAGS, INFO_TOPICS, PLAIN_FLAGS, VALUE_FLAGS, flags_and_overrides
from rnnclf.hydra_app.compose import composing, plugins_in
from rnnclf.hydra_app.repeats import REPEATS, ranges
from rnnclf.hydra_app.setup import register
from rnnclf.hydra_app.words import prepared
from rnnclf.options import default_of
from rnnclf.trackers import TRACKERS

PLAIN_KEYS = {option.name: option for option in fields(Config) if option.name not in (*GROUPS, *NESTED)}
CONFIG_PARTS = ("job", "hydra", "all")
PATH_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp", "--experimental-rerun")
PATH_KEYS = ("hydra.run.dir", "hydra.sweep.dir")
AFTER_FLAGS = {"--cfg": CONFIG_PARTS, "-c": CONFIG_PARTS} | dict.fromkeys(INFO_FLAGS, INFO_TOPICS)
COMPLETION_FLAGS = (
    "--shell-completion",
    "-sc",
)  # Hydra's own completion, which does not support sub-commands


def complete(words: list[str], incomplete: str) -> list[str]:
    """The completions of `incomplete` after `words`; none if the line so far is invalid."""
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # plugins may print
            return _found(words, incomplete)
    except (Exception, SystemExit):  # never print a traceback for a half-typed line
        return []


def _found(words: list[str], incomplete: str) -> list[str]:
    last = words[-1] if words else ""
    if last in AFTER_FLAGS:
        return _starting_with(incomplete, AFTER_FLAGS[last])
    if last in VALUE_FLAGS.split():
        return paths_starting(incomplete) if last in PATH_FLAGS else []
    if incomplete.startswith("-"):
        flags = [*VALUE_FLAGS.split(), *PLAIN_FLAGS.split(), *INFO_FLAGS, "--json"]
        return _starting_with(incomplete, (flag for flag in flags if flag not in COMPLETION_FLAGS))
    flags, overrides = flags_and_overrides([word for word in words if word != "--json"])
    register(plugins_in(overrides))
    with suppress(RnnclfError):  # a word that has no meaning yet
        overrides = [word for word in overrides if not word.startswith("tracker=")]
        overrides = prepared(ranges(overrides), sweep=True).words
    with composing():
        line = Line(flags, overrides)
        found = line.next(incomplete)
        if len(found) == 1 and "=" not in found[0][:-1] and found[0][-1] in "=./":
            found += line.next(found[0])  # a sole key is shown with its values
    return found


def _starting_with(start: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(start)]


class Line:
    """The line so far, and what can follow it.

    Composing the configuration is slow, so it is only done when needed.
    """

    def __init__(self, flags: list[str], overrides: list[str]) -> None:
        named = dict(pairwise(part for flag in flags for part in flag.split("=", 1)))
        self.config_name = named.get("--config-name", named.get("-cn", "config"))
        self.overrides = list(overrides)
        if folder := named.get("--config-dir", named.get("-cd")):
            self.overrides.append(f"hydra.searchpath=['file://{Path(folder).absolute()}']")

    def next(self, incomplete: str) -> list[str]:
        """The completions of `incomplete`, one step ahead: a name, or a value after '='."""
        word = incomplete.lstrip("+")  # +key=value adds a key, ++key=value adds or changes one
        plus = incomplete[: len(incomplete) - len(word)]
        key, equals, value = word.partition("=")
        if equals:
            *earlier, start = value.split(",")  # a sweep: cell=basic,l
            known = paths_starting(start) if self.is_path(key) else _starting_with(start, self.values(key))
            values = [value for value in known if value not in earlier]
            found = [f"{key}={','.join([*earlier, value])}" for value in values]
        else:
            found = _starting_with(word, [*self.groups(key), *self.keys(key)])
        # the group `schema` is ours: its entries are types, not choices
        return [plus + word for word in found if re.match(r"(?!schema\b)\w", word)]

    def groups(self, start: str) -> list[str]:
        """`cell=` and so on, and `hydra/`, the only one with groups below it."""
        parent, slash, _ = start.rpartition("/")
        below = [parent + slash + name for name in self._choices(parent, ObjectType.GROUP)]
        return [name + ("/" if name == "hydra" else "=") for name in below]

    def keys(self, start: str) -> list[str]:
        """`hidden=` and so on, and `cell.` for keys with keys below them."""
        parent, _, _ = start.rpartition(".")
        if not parent:
            return [
                *(f"{name}=" for name in (*PLAIN_KEYS, *REPEATS, "tracker")),
                *(f"{part}." for part in (*GROUPS, *NESTED, "hydra")),
            ]
        if parent in GROUPS:
            return [f"{parent}.{name}=" for name in self._options(parent)]
        node = self._node(parent)
        return [f"{parent}.{key}{'.' if isinstance(node[key], dict) else '='}" for key in node]

    def is_path(self, key: str) -> bool:
        """Whether the values of a key are files or folders."""
        parent, _, name = key.rpartition(".")
        if parent not in GROUPS:
            return key in PATH_KEYS
        options = self._options(parent)
        return name in options and bool(options[name].metadata.get("path"))

    def values(self, key: str) -> list[str]:
        """The choices of a group or an option; the default of an option that takes any value."""
        if key == "tracker":
            return TRACKERS.names()
        parent, dot, name = key.rpartition(".")
        if dot and parent not in GROUPS:
            return _as_words(self._node(parent)[name])
        options = self._options(parent) if dot else PLAIN_KEYS
        if name not in options:
            return self._choices(key, ObjectType.CONFIG)
        option = options[name]
        return list(option.metadata.get("choices") or _as_words(default_of(option)))

    def _options(self, group: str) -> dict[str, Field[Any]]:
        """The options of the component chosen on the line; those in common if a sweep chooses several."""
        chosen = [word.partition("=")[2] for word in self.overrides if word.startswith(f"{group}=")]
        names = chosen[-1].split(",") if chosen else []
        if not names or any(name not in GROUPS[group] for name in names):
            names = [str(self._node(group)["name"])]
        first, *others = ({option.name: option for option in fields(GROUPS[group][name])} for name in names)
        shared = first.keys() - {"name"}  # names the component, so it is not an option
        return {name: first[name] for name in first if name in shared.intersection(*others)}

    def _choices(self, group: str, kind: ObjectType) -> list[str]:
        paths = [word for word in self.overrides if word.startswith("hydra.searchpath=")]
        return GlobalHydra.instance().config_loader().get_group_options(group, kind, None, paths)

    def _node(self, path: str) -> dict[str, Any]:
        node: dict[str, Any] = self.config
        for part in path.split("."):
            node = node[part]
        return node

    @cached_property
    def config(self) -> dict[str, Any]:
        composed = compose(self.config_name, first_of_sweeps(self.overrides), return_hydra_config=True)
        # Not resolved: resolving hydra.run.dir would create that folder.
        plain: Any = OmegaConf.to_container(composed, resolve=False)
        return dict(plain)


def first_of_sweeps(words: list[str]) -> list[str]:
    """Replaces `cell=lstm,gru` by `cell=lstm`, so that one configuration stands in for a sweep."""
    parsed = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(words)
    plain = []
    for word, override in zip(words, parsed, strict=True):
        if override.is_discrete_sweep():
            plain.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}")
        elif not override.is_sweep_override():  # an interval has no first value
            plain.append(word)
    return plain


def _as_words(value: Any) -> list[str]:
    """The value as typed on a command line; none if it needs quotes or is an interpolation."""
    if isinstance(value, bool):
        return ["true", "false"]
    text = "null" if value is None else str(value)
    return [text] if re.fullmatch(r"[\w.+/-]+|\[\]", text) else []
