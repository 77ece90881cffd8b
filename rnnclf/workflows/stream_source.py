"""What a stream takes from a checkpoint: the columns to look for in its lines, and the length of a window."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rnnclf.data.own import OwnData
from rnnclf.data.step_lines import Wanted
from rnnclf.data.table import Table
from rnnclf.data.table.cells import Missing
from rnnclf.errors import ConfigError
from rnnclf.workflows.loading import Loaded


def window_of(loaded: Loaded) -> tuple[int, int] | None:
    """The steps of a window, and those from the beginning of one to that of the next; None without windows.

    Raises ConfigError for durations, whose number of steps depended on the training data.
    """
    source = loaded.config.dataset
    if not isinstance(source, OwnData) or source.window is None:
        return None
    window, stride = source.window, source.window if source.step is None else source.step
    for key, value in (("window", window), ("step", stride)):
        if isinstance(value, str):
            raise ConfigError(
                f"The model was trained with dataset.{key}={value}, a duration, so the model cannot answer"
                " step by step: train with a number of steps."
            )
    return int(window), int(stride)


def wanted_of(loaded: Loaded) -> Wanted:
    """What to look for in the lines: roles as in the training data, as far as these are known."""
    preparation, source = loaded.learned.preparation, loaded.config.dataset
    timed = bool(preparation.timed)
    wanted = Wanted(
        preparation.channels,
        preparation.vocabularies,
        gaps=preparation.missing != "error",
        timed=timed,
        needs_time=timed and preparation.missing == "mask",
    )
    if not isinstance(source, Table):
        return wanted
    id, time = _trained_roles(loaded)
    given = source.missing_values
    return replace(
        wanted,
        id=id if source.id is None else _listed(source.id),
        time=time if source.time is None else source.time,
        missing=Missing.given(None if given is None else tuple(given)),
        delimiter=source.delimiter,
        decimal=source.decimal,
        time_format=source.time_format,
    )


def _listed(id: Any) -> tuple[str, ...]:
    return tuple(map(str, id if isinstance(id, list | tuple) else [id]))


def _trained_roles(loaded: Loaded) -> tuple[tuple[str, ...] | None, str | None]:
    """The columns of id and time that training found; None where its checkpoint does not say."""
    known = loaded.checkpoint.header.get("training_data")
    columns = known.get("columns") if isinstance(known, dict) else None
    if not isinstance(columns, dict) or columns.get("form") != "long":
        return None, None
    id, time = columns.get("id"), columns.get("time")
    names = tuple(map(str, id)) if isinstance(id, list) else ()
    return names or None, str(time) if time else None
