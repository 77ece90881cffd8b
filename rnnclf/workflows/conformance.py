"""Checks the claims that every cell must satisfy on a cell of the user. Prints nothing."""

from __future__ import annotations

from collections.abc import Callable

from rnnclf.cells import CELLS, Cell
from rnnclf.conformance.claims import CLAIMS
from rnnclf.conformance.verdict import Verdict, verdict, words
from rnnclf.errors import ConfigError
from rnnclf.hydra_app.setup import own_module
from rnnclf.registry import did_you_mean


def cell_named(word: str) -> type[Cell]:
    """The class named by `module:Class` or by the name of a cell. Raises ConfigError."""
    module_name, colon, class_name = word.partition(":")
    if not colon:
        return CELLS[word]
    module_name = module_name.removesuffix(".py").replace("/", ".")
    module = own_module(module_name)
    kind = getattr(module, class_name, None)
    if not isinstance(kind, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError(f"'{module_name}' has no class '{class_name}'.{did_you_mean(class_name, classes)}")
    if not issubclass(kind, Cell):
        raise ConfigError(f"{class_name} is not a cell: it must derive from rnnclf.cells.Cell.")
    return kind


def check_claims(kind: type[Cell], watch: Callable[[str], None] = lambda claim: None) -> list[Verdict]:
    """Returns a verdict for each claim. Calls `watch` with each claim before it is tested."""
    verdicts = []
    for claim in CLAIMS:
        watch(words(claim))
        verdicts.append(verdict(claim, kind))
    return verdicts
