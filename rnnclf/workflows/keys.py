"""What each key of the configuration means, for `rnnclf show KEY` and `rnnclf train --help`. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from rnnclf.config import GROUPS, NESTED, Config
from rnnclf.errors import UnknownNameError
from rnnclf.hydra_app.help import composed_values
from rnnclf.options import OptionFacts, described
from rnnclf.registry import did_you_mean

MODEL = (
    *("hidden", "match_parameters", "axes", "layers", "bidirectional", "residual", "norm", "readout"),
    *("readout_layers", "dropout", "input_dropout", "variational", "recurrent_dropout", "zoneout"),
)
TRAINING = (
    *(
        "recipe",
        "epochs",
        "updates",
        "patience",
        "max_time",
        "batch_size",
        "select",
        "final_fit",
        "init",
        "init_sha256",
        "freeze",
        "seed",
        "name",
        "clip",
        "label_smoothing",
        "class_weights",
        "sampling",
        "focal",
    ),
    *("protocol", "on_divergence", "checkpoint.every", "diagnose", "plots"),
)
MACHINE = ("device", "threads", "engine", "precision", "graph", "plugins")
SET_BY_HIDDEN = "hidden_size"
"""The option of cells that `hidden` sets, so that it is not shown."""


@dataclass(frozen=True)
class Variant:
    """The facts of a key that some components of its group share."""

    components: tuple[str, ...]
    """Their names; none for a key that belongs to no component."""
    facts: OptionFacts


@dataclass(frozen=True)
class Key:
    """One key of the configuration."""

    name: str
    variants: tuple[Variant, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"key": self.name, "variants": [asdict(variant) for variant in self.variants]}


@dataclass(frozen=True)
class Section:
    """Keys that belong together, with the values that a command gives to them."""

    title: str
    keys: tuple[tuple[OptionFacts, Any], ...]
    """The facts of each, under its full name, and its value."""

    def to_dict(self) -> dict[str, Any]:
        keys = [{**asdict(facts), "value": value} for facts, value in self.keys]
        return {"title": self.title, "keys": keys}


def top_keys() -> dict[str, OptionFacts]:
    """The keys that belong to no component, by their full names."""
    found = {facts.name: facts for facts in described(Config)}
    for parent, kind in NESTED.items():
        found |= {f"{parent}.{f.name}": replace(f, name=f"{parent}.{f.name}") for f in described(kind)}
    return found


def _options(group: str, component: str) -> list[OptionFacts]:
    return [facts for facts in described(GROUPS[group][component]) if facts.name != SET_BY_HIDDEN]


def keys_named(word: str) -> list[Key]:
    """The keys that a word may mean: one for a full name, any number for the last part of a name."""
    name = word.partition("=")[0]
    if name.rpartition(".")[2] == SET_BY_HIDDEN:
        name = "hidden"
    top = top_keys()
    if name in top:
        return [Key(name, (Variant((), top[name]),))]
    group, dot, option = name.rpartition(".")
    if not dot:
        nested = [
            Key(full, (Variant((), facts),)) for full, facts in top.items() if full.endswith(f".{name}")
        ]
        return nested + [key for known in GROUPS if (key := _component_key(known, name))]
    found = _component_key(group, option) if group in GROUPS else None
    if found is None and group in GROUPS and option in top:  # such as cell.zoneout
        return keys_named(option)
    return [found] if found else []


def _component_key(group: str, option: str) -> Key | None:
    """An option of one or more components of a group; those with the same facts together."""
    variants: list[Variant] = []
    for component in GROUPS[group].names():
        for facts in (facts for facts in _options(group, component) if facts.name == option):
            same = next((v for v in variants if v.facts == facts), Variant((), facts))
            variants = [v for v in variants if v is not same]
            variants.append(replace(same, components=(*same.components, component)))
    return Key(f"{group}.{option}", tuple(variants)) if variants else None


def all_names() -> Iterator[str]:
    """The full names of all keys."""
    yield from top_keys()
    for group, registry in GROUPS.items():
        options = (facts.name for name in registry.names() for facts in _options(group, name))
        yield from (f"{group}.{option}" for option in dict.fromkeys(options))


def unknown_word(word: str, known: list[str]) -> UnknownNameError:
    """The error for a word that is neither a choice nor a key."""
    name = word.partition("=")[0]
    hint = did_you_mean(name, [*known, *all_names()])
    return UnknownNameError(
        f"Nothing is named '{word}'.{hint} All choices: rnnclf list. All keys: rnnclf train --help."
    )


def sections(words: list[str]) -> list[Section]:
    """All keys of `rnnclf train` with these words, by subject. Raises RnnclfError for invalid words."""
    values = composed_values(words)
    top = top_keys()

    def of_all(title: str, names: tuple[str, ...]) -> Section:
        return Section(title, tuple((top[name], _value(values, name)) for name in names))

    def of_component(group: str) -> Section:
        name = str(values[group]["name"])
        facts = [replace(f, name=f"{group}.{f.name}") for f in _options(group, name)]
        return Section(f"{group}={name}", tuple((f, _value(values, f.name)) for f in facts))

    return [
        of_all("model", MODEL),
        of_component("cell"),
        of_all("training", TRAINING),
        *(of_component(group) for group in ("optimizer", "schedule", "dataset", "augment", "average")),
        of_all("machine", MACHINE),
    ]


def _value(values: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values
