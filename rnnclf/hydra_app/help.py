"""The values of all keys in a command, for its help. Runs nothing and makes no folder."""

from __future__ import annotations

from typing import Any

from hydra import compose
from omegaconf import OmegaConf

from rnnclf.hydra_app.bridge import flags_and_overrides
from rnnclf.hydra_app.completion import Line, first_of_sweeps
from rnnclf.hydra_app.compose import composing, explained, plugins_in
from rnnclf.hydra_app.repeats import ranges
from rnnclf.hydra_app.setup import register


def composed_values(words: list[str]) -> dict[str, Any]:
    """The configuration of these words of `rnnclf train` as plain data; of a sweep, that of its first job.

    Raises RnnclfError.
    """
    flags, overrides = flags_and_overrides(words)
    register(plugins_in(overrides))
    try:
        with composing():
            line = Line(flags, ranges(overrides))
            composed = compose(line.config_name, first_of_sweeps(line.overrides))
            plain: Any = OmegaConf.to_container(composed, resolve=True)
            return dict(plain)
    except Exception as error:  # as for a run: the only input is the words
        raise explained(error) from error
