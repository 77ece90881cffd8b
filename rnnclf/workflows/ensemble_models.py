"""The models whose probabilities are averaged. Prints nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rnnclf.errors import CheckpointError
from rnnclf.workflows.ensemble_file import EnsembleFile, verified
from rnnclf.workflows.exported import LoadedFile
from rnnclf.workflows.loading import Loaded, load_model


def load_members(
    found: EnsembleFile, words: list[str], data: Path | None = None, *, labelled: bool = False
) -> list[Loaded]:
    """The models of an ensemble, each as `load_model` loads it. Raises CheckpointError or ConfigError."""
    files = [verified(found, member) for member in found.members]
    models = [load_model(file, words, data, labelled=labelled) for file in files]
    refuse_different(models)
    return models


def refuse_different(models: Sequence[Loaded | LoadedFile]) -> None:
    """Raises CheckpointError for models that do not answer the same question of the same data."""
    first = models[0]
    for other in models[1:]:
        for what, one, two in (
            ("classes", first.learned.classes, other.learned.classes),
            ("channels", first.learned.preparation.channels, other.learned.preparation.channels),
            ("data", first.checkpoint.reading, other.checkpoint.reading),
        ):
            if one != two:
                raise CheckpointError(
                    f"{first.checkpoint.path} and {other.checkpoint.path} were trained on different {what}:"
                    " their probabilities cannot be averaged."
                )
