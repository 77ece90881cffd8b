"""Descriptions come from docstrings, also where Python was told to drop those."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pytest

from rnnclf import docstrings
from rnnclf.cli import app
from rnnclf.config import GROUPS
from rnnclf.docstrings import docstring_of
from rnnclf.metrics import METRICS
from rnnclf.readout import READOUTS

DESCRIBED = {
    **{f"{group}={name}": kind for group, registry in GROUPS.items() for name, kind in registry.items()},
    **{f"readout={name}": type(readout) for name, readout in READOUTS.items()},
    **{metric.key: metric.compute for metric in METRICS},
    **{command.callback.__name__: command.callback for command in app.registered_commands},
}


@pytest.mark.parametrize("name", ["cell=lstm", "dataset=table", "readout=mean", "auroc", "train"])
def test_a_docstring_that_python_dropped_is_read_from_the_source(name):
    assert docstrings._in_source(DESCRIBED[name]) == inspect.getdoc(DESCRIBED[name])


def test_everything_that_is_listed_has_a_description():
    for name, thing in DESCRIBED.items():
        assert docstring_of(thing), name


def test_the_signature_of_a_dataclass_is_no_description():
    @dataclass
    class Plain:
        size: int = 3

    assert Plain.__doc__.startswith("Plain(size")
    assert docstring_of(Plain) == ""


def test_what_has_no_source_has_no_description_either():
    assert docstrings._in_source(type("Made", (), {})) == ""
