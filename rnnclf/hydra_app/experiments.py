"""The files of experiments: which one a run used, and the figures that are expected of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

from rnnclf.errors import ConfigError
from rnnclf.expectation import KEY, Expectation, from_plain
from rnnclf.hydra_app.grammar import meant
from rnnclf.hydra_app.setup import conf_dir

NO_SETTINGS = ("seed", "threads", "device", "name", "plots", "diagnose", "checkpoint.every", "dataset.root")
"""The keys that can be set beside an experiment without making it another one."""


def expected_in(path: Path) -> list[Expectation]:
    """The figures in the file of an experiment; those of another file that it builds on are not its own.

    Raises ConfigError, also for a file that is no YAML.
    """
    plain: Any = OmegaConf.to_container(_loaded(path))
    try:
        return from_plain(plain.get(KEY)) if isinstance(plain, dict) else []
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def without_expected(text: str) -> str:
    """The text of an experiment's file without its figures."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    lines = text.splitlines()
    for key, value in root.value if isinstance(root, yaml.MappingNode) else []:
        if key.value == KEY:
            first, end = key.start_mark.line, value.end_mark.line + (value.end_mark.column > 0)
            while lines[end - 1].startswith("#"):  # of what follows
                end -= 1
            del lines[first:end]
    return "\n".join(lines)


def expectation_of(words: Iterable[str], record: Path | None = None) -> Expectation | None:
    """What the file of an experiment says of a run with these words; None if they are those of no experiment,
    or change its settings.

    Args:
        words: overrides in Hydra's grammar.
        record: Hydra's record of the run, with the folders in which it looked for the file; without it, that
            is ours.

    Raises ConfigError.
    """
    pairs = [word.partition("=") for word in words]
    names = [meant(value) for key, _, value in pairs if key == "experiment"]
    settings = [pair for pair in pairs if pair[0] not in (*NO_SETTINGS, "experiment")]
    others = {f"{key}={value}" for key, _, value in settings if not key.startswith("hydra")}
    files = [folder / "experiment" / f"{name}.yaml" for name in names for folder in _folders(record)]
    if len(names) != 1 or not (found := [path for path in files if path.is_file()]):
        return None
    return next((entry for entry in expected_in(found[0]) if set(entry.words.split()) == others), None)


def _folders(record: Path | None) -> list[Path]:
    """The folders of configurations, in the order in which Hydra searches them."""
    if record is None or not record.is_file():
        return [conf_dir()]
    sources = OmegaConf.select(_loaded(record), "hydra.runtime.config_sources") or []
    return [Path(str(source.path)) for source in sources if source.schema == "file"]


def _loaded(path: Path) -> DictConfig | ListConfig:
    try:
        return OmegaConf.load(path)
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as YAML.") from error
