"""Going on from a trained model, `init`: finds its checkpoint, and takes the options of the model from it.

Does not import torch: this is done for all jobs of a sweep before the first of them starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf import checkpoint
from rnnclf.config import Config
from rnnclf.config_reading import from_plain
from rnnclf.errors import CheckpointError, ConfigError, RnnclfError
from rnnclf.files import absolute
from rnnclf.options import as_typed
from rnnclf.stack import Stack
from rnnclf.workflows.checkpoints import only_checkpoint

if TYPE_CHECKING:  # importing Hydra takes a while
    from rnnclf.hydra_app.checks import Planned

OF_THIS_RUN = ("engine", "precision")
"""Options of the stack that say how to compute a model rather than what it is."""
OF_STEPS = ("sequence", "patch", "colour", "permutation")
"""Options of dataset that decide what one step of a sequence is."""
OF_VALUES = ("normalise", "missing")
"""Options of dataset that decide how values become inputs."""


def continued(config: Config, words: Sequence[str]) -> Config:
    """The config with the cell and the stack of the model in `init`, unless `words` say otherwise, and with
    the path and the checksum of its checkpoint; unchanged without `init`.

    words: overrides such as `layers=2`, as the user typed them.

    Raises CheckpointError if there is no such model or if it is damaged or not the one that was begun with,
    ConfigError for data of another kind and for words that do not fit its weights.
    """
    if config.init is None:
        return config
    file = _checkpoint_at(config.init)
    found = checkpoint.describe(file)
    if not found.intact:
        raise CheckpointError(checkpoint.mismatch(file))
    if config.init_sha256 not in (None, found.sha256):
        raise CheckpointError(changed(file))
    there = recorded_config(file, found.header)
    _refuse_other_kind(config, there)
    typed = {word.partition("=")[0].strip().lstrip("+") for word in words}
    _refuse_misfits(config, there, typed)
    own = {option.name for option in fields(there.cell) if f"cell.{option.name}" in typed}
    cell = replace(there.cell, **{name: getattr(config.cell, name) for name in own})
    stack = {
        option.name: getattr(there, option.name)
        for option in fields(Stack)
        if option.name not in (*OF_THIS_RUN, *typed)
    }
    return replace(
        config,
        cell=cell,
        hidden=there.hidden,
        dataset=replace(config.dataset, **_reading_of(config, there, typed)),
        init=str(file),
        init_sha256=found.sha256,
        **stack,
    )


def continued_jobs(jobs: Iterable[Planned]) -> list[Planned]:
    """The jobs of a sweep with `continued` configurations. Raises an RnnclfError that names the job."""
    found = []
    for job in jobs:
        try:
            found.append(job._replace(config=continued(job.config, job.words)))
        except RnnclfError as error:
            raise ConfigError(f"{error} (in the job {' '.join(job.words)}; no job was started)") from error
    return found


def record_of(config: Config) -> dict[str, Any]:
    """What provenance.json says about the model that a run began with; nothing if it began anew."""
    return {} if config.init is None else {"init": {"path": config.init, "sha256": config.init_sha256}}


def changed(file: Path) -> str:
    return f"{file} has changed since the run began with it: its checksum is not the init_sha256 of the run."


def recorded_config(file: Path, header: Mapping[str, Any]) -> Config:
    """The configuration in the header of a checkpoint. Raises CheckpointError."""
    try:
        return from_plain(header["config"])
    except (RnnclfError, KeyError, TypeError, AttributeError) as error:
        own = " If it is your own, name its module: plugins=my_module." if "No cell" in str(error) else ""
        raise CheckpointError(f"{file}: {error}{own}") from error


def _checkpoint_at(path: str) -> Path:
    absolute(path)  # raises ConfigError for the home folder of nobody
    return Path(absolute(str(only_checkpoint(Path(path).expanduser()))))


def _refuse_other_kind(config: Config, there: Config) -> None:
    kinds = ["series" if c.dataset.layout() is None else "pictures" for c in (there, config)]
    if kinds[0] != kinds[1]:
        raise ConfigError(
            f"{config.init} was trained on {kinds[0]} ({there.dataset.title()}):"
            f" it cannot go on with {kinds[1]} ({config.dataset.title()})."
        )


def _refuse_misfits(config: Config, there: Config, typed: set[str]) -> None:
    """Raises ConfigError for a word that other weights than those of the model would be needed for."""

    def options(c: Config) -> dict[str, Any]:
        return {
            **{"cell": c.cell.name, "hidden": c.cell.hidden_size, "cell.hidden_size": c.cell.hidden_size},
            **{key: getattr(c, key) for key in ("axes", "layers", "bidirectional", "norm", "readout_layers")},
            **({"readout": c.readout} if "attention" in (config.readout, there.readout) else {}),
            **{f"dataset.{key}": getattr(c.dataset, key, None) for key in OF_STEPS},
        }

    now, then = options(config), options(there)
    for key in now:
        if key in typed and now[key] != then[key]:
            raise misfit(key, now[key], then[key], str(config.init))


def misfit(key: str, now: Any, then: Any, init: str) -> ConfigError:
    """The error of a word that does not fit the weights of the model in `init`."""
    return ConfigError(
        f"{key}={word_of(now)} does not fit the weights of {init}, which was trained with"
        f" {key}={word_of(then)}: leave out {key}."
    )


def word_of(value: Any) -> str:
    """A value as one types it after the '=' of a word."""
    return value if isinstance(value, str) else as_typed(value)


def _reading_of(config: Config, there: Config, typed: set[str]) -> dict[str, Any]:
    """The options of dataset that the model was trained with, of those that these data have, too."""
    return {
        key: getattr(there.dataset, key)
        for key in (*OF_STEPS, *OF_VALUES)
        if hasattr(there.dataset, key)
        and hasattr(config.dataset, key)
        and f"dataset.{key}" not in typed
        # a model that saw no gaps says nothing about how to fill them
        and not (key == "missing" and there.dataset.missing == "error")
    }
