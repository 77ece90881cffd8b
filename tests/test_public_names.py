"""The names that `from rnnclf import …` knows, and the page that explains them."""

from __future__ import annotations

import ast

import pytest

import rnnclf
from tests.conftest import ROOT
from tests.imports import modules_after

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def imported_for_types() -> dict[str, str]:
    """The names of the block for type checkers, and the modules they come from."""
    code = ast.parse((ROOT / "rnnclf" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in code.body if isinstance(node, ast.If))
    return {name.name: str(line.module) for line in block.body for name in line.names}  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_names():
    assert imported_for_types() == rnnclf._HOME
    assert rnnclf.__all__ == sorted(rnnclf._HOME)


@pytest.mark.parametrize("name", rnnclf.__all__)
def test_each_public_name_can_be_imported_and_is_explained(name):
    assert getattr(rnnclf, name).__name__ == name
    assert name in dir(rnnclf)
    assert f"`{name}`" in PAGE


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'RNNClasifier'"):
        _ = rnnclf.RNNClasifier


def test_import_rnnclf_imports_nothing_heavy():
    loaded = modules_after("import rnnclf; dir(rnnclf)")
    assert not loaded & {"torch", "sklearn", "numpy", "polars", "hydra", "omegaconf", "rnnclf.config"}


@pytest.mark.long
def test_the_classifier_waits_for_torch_until_it_trains():
    assert "torch" not in modules_after("from rnnclf import RNNClassifier; RNNClassifier(hidden=3)")
