"""The choices of the command line, by group, with their options and facts. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnnclf.cells import Cell
from rnnclf.cells.initializers import INPUT_INITS, RECURRENT_INITS
from rnnclf.config import GROUPS
from rnnclf.docstrings import docstring_of
from rnnclf.errors import UnknownNameError
from rnnclf.expectation import Expectation
from rnnclf.hydra_app.experiments import expected_in, without_expected
from rnnclf.hydra_app.setup import conf_dir, register
from rnnclf.metrics import METRICS
from rnnclf.options import OptionFacts, described
from rnnclf.readout import READOUTS
from rnnclf.registry import Registry
from rnnclf.trackers import TRACKERS
from rnnclf.workflows.keys import Key, keys_named, unknown_word

EXAMPLE_INPUTS = 28  # features at which parameter counts are compared: a row of an MNIST image


@dataclass(frozen=True)
class Choice:
    """One choice of a group."""

    group: str
    name: str
    summary: str
    word: str
    """The word of the command line that selects it."""
    details: str = ""
    options: tuple[OptionFacts, ...] = ()
    facts: tuple[tuple[str, Any], ...] = ()
    expected: tuple[Expectation, ...] = ()
    """Of an experiment: the accuracy and the cost that were measured, for each set of further words."""

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "options": [asdict(o) for o in self.options],
            "expected": [asdict(found) for found in self.expected],
            "facts": dict(self.facts),
        }


def _components(group: str) -> list[Choice]:
    return [_component(group, name, kind) for name, kind in GROUPS[group].items()]


def _component(group: str, name: str, kind: Any) -> Choice:
    summary, details = _summary_and_rest(kind)
    return Choice(
        group=group,
        name=name,
        summary=summary,
        word=f"{group}={name}",
        details=details,
        options=tuple(o for o in described(kind) if o.name != "hidden_size"),
        facts=_cell_facts(kind) if issubclass(kind, Cell) else (),
    )


def _summary_and_rest(described_by: Any) -> tuple[str, str]:
    """The first paragraph of a docstring as one line, and the others."""
    summary, _, details = docstring_of(described_by).partition("\n\n")
    return _reflowed(summary), _reflowed(details.strip())


def _reflowed(text: str) -> str:
    """Joins the lines of each paragraph, so that any terminal can wrap it; equations are left as they are."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(p if " = " in p else " ".join(p.split()) for p in paragraphs)


def _cell_facts(kind: type[Cell]) -> tuple[tuple[str, Any], ...]:
    cell = kind()
    trained = [spec.shape for spec in cell.parameters(EXAMPLE_INPUTS).values() if spec.trained]
    paper = kind.paper
    return (
        ("family", kind.family),
        ("parameters", sum(map(math.prod, trained))),
        ("formula", cell.formula.replace("*", "·")),
        ("gates", ", ".join(kind.gates)),
        ("engine", ", ".join(cell.engines)),
        ("paper", f"{paper}, {paper.title}, {paper.url}" if paper else ""),
        ("source", str(paper) if paper else ""),
        ("published", [asdict(published) for published in kind.published]),
    )


def _functions(group: str, registry: Registry[Any], word: str) -> list[Choice]:
    choices = []
    for name, function in registry.items():
        summary, details = _summary_and_rest(function)
        choices.append(Choice(group, name, summary, f"{word}={name}", details))
    return choices


def _metrics() -> list[Choice]:
    """The metrics in the results besides accuracy and log loss. They are only listed, not selected."""
    choices = []
    for metric in METRICS:
        choices.append(Choice("metric", metric.key, _reflowed(docstring_of(metric.compute)), metric.key))
    return choices


def _files(group: str) -> list[Path]:
    return sorted((conf_dir() / group).glob("*.yaml"))


def _in_files(group: str) -> list[Choice]:
    """The choices of a group whose files set keys of all groups."""
    choices = []
    for path in _files(group):
        text = path.read_text(encoding="utf-8")
        expected = tuple(expected_in(path))
        lines = (without_expected(text) if expected else text).splitlines()
        comments = [line.lstrip("# ") for line in lines if line.startswith("# ") and "@package" not in line]
        body = "\n".join(line for line in lines if not line.startswith("#"))
        word, summary = f"{group}={path.stem}", " ".join(comments)
        choices.append(Choice(group, path.stem, summary, word, body, expected=expected))
    return choices


_SOURCES: dict[str, Callable[[], list[Choice]]] = {
    **{group: (lambda group=group: _components(group)) for group in GROUPS},  # type: ignore[misc]
    "recipe": lambda: _in_files("recipe"),
    "experiment": lambda: _in_files("experiment"),
    "readout": lambda: _functions("readout", READOUTS, "readout"),
    "input_init": lambda: _functions("input_init", INPUT_INITS, "cell.input_init"),
    "metric": _metrics,
    "recurrent_init": lambda: _functions("recurrent_init", RECURRENT_INITS, "cell.recurrent_init"),
    "tracker": lambda: _functions("tracker", TRACKERS, "tracker"),
}

KINDS: Registry[Callable[[], list[Choice]]] = Registry("group", _SOURCES)


def group_named(word: str) -> str:
    """The group named by `word`, singular or plural: cells → cell. Raises UnknownNameError."""
    singular = word.removesuffix("s")
    name = singular if singular in KINDS else word
    KINDS[name]  # raises UnknownNameError
    return name


def list_choices(word: str | None = None, plugins: tuple[str, ...] = ()) -> list[Choice]:
    """All choices, or the choices of one group."""
    register(list(plugins))
    groups = KINDS.names() if word is None else [group_named(word)]
    return [choice for group in groups for choice in KINDS[group]()]


def find(word: str, name: str | None = None, plugins: tuple[str, ...] = ()) -> Choice | Key | list[Choice]:
    """What `rnnclf show` is asked for: a choice, a key, or all choices of a group.

    `word` is a group if there is a `name`; alone it is the name of a choice or a key, or `cell=lstm`, or a
    group. Raises UnknownNameError for a word that means nothing or several things.
    """
    if name is not None:
        return show_choice(word, name, plugins)
    register(list(plugins))
    group, equals, value = word.rpartition("=")
    choices = [(known, value) for known, names in choice_names() if value in names]
    if equals:
        choices = [(known, value) for known, _ in choices if group in (known, f"cell.{known}")]
    keys = [] if equals and choices else keys_named(word)
    if len(choices) + len(keys) == 1:
        return show_choice(*choices[0], plugins) if choices else keys[0]
    if choices or keys:
        lines = [f"rnnclf show {group} {choice}" for group, choice in choices]
        lines += [f"rnnclf show {key.name}" for key in keys]
        raise UnknownNameError(f"'{word}' means several things. Choose one: {', '.join(lines)}.")
    group = word.removesuffix("s")
    if group in KINDS:
        return list_choices(group, plugins)
    raise unknown_word(word, [*KINDS.names(), *(choice for _, names in choice_names() for choice in names)])


def choice_names() -> list[tuple[str, list[str]]]:
    """The names of all choices by group, without their facts."""
    registries = {**GROUPS, "readout": READOUTS, "input_init": INPUT_INITS, "recurrent_init": RECURRENT_INITS}
    registries["tracker"] = TRACKERS
    named = {group: registries[group].names() for group in KINDS if group in registries}
    named["metric"] = [metric.key for metric in METRICS]
    for group in ("recipe", "experiment"):
        named[group] = [path.stem for path in _files(group)]
    return list(named.items())


def groups_and_names() -> list[tuple[str, list[str]]]:
    """The groups of `rnnclf train GROUP=NAME`, and the names in each."""
    typed = (*GROUPS, "recipe", "experiment", "tracker")
    return [(group, names) for group, names in choice_names() if group in typed]


def show_choice(word: str, name: str, plugins: tuple[str, ...] = ()) -> Choice:
    """One choice of a group, with all its details. Raises UnknownNameError."""
    group = group_named(word)
    choices = {choice.name: choice for choice in list_choices(group, plugins)}
    return Registry(group, choices)[name]
