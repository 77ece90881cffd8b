"""Composes configurations without running anything: from overrides, or from a checkpoint's config."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rnnclf.config import GROUPS, Config
from rnnclf.config_reading import causes, from_composed, from_plain, in_words, plain_node
from rnnclf.errors import ConfigError, RnnclfError
from rnnclf.hydra_app.grammar import parse
from rnnclf.hydra_app.recipes import with_recipe
from rnnclf.hydra_app.setup import conf_dir, register
from rnnclf.hydra_app.words import in_grammar, prepared
from rnnclf.registry import did_you_mean

_one_at_a_time = threading.RLock()
"""Hydra composes in global state, which the threads of a process share."""


@contextmanager
def composing() -> Iterator[None]:
    """Context in which Hydra composes from our conf folder. On exit, it restores a Hydra that the caller has
    initialised, in a script or a job of their own."""
    with _one_at_a_time:
        theirs, version = GlobalHydra.instance().hydra, VersionBase.instance().version_base
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                yield
        finally:
            GlobalHydra.instance().hydra, VersionBase.instance().version_base = theirs, version


def load_config(overrides: list[str]) -> Config:
    """The Config of `rnnclf train` with these words; for scripts and notebooks. Raises RnnclfError."""
    return composed(new_words(overrides))


def new_words(words: Iterable[str]) -> list[str]:
    """The words of a single run in Hydra's grammar. Imports the plugins they name. Raises RnnclfError."""
    words = list(words)
    register(plugins_in(words))
    return with_recipe(prepared(words).words)


def composed(words: list[str]) -> Config:
    """The Config that words in Hydra's grammar give. Raises RnnclfError."""
    refuse_conflicting(words)
    return from_composed(_compose(words))


def _compose(overrides: list[str]) -> DictConfig:
    register(plugins_in(overrides))
    try:
        with composing():
            return compose("config", overrides)
    except Exception as error:  # the only input is the words, for some of which Hydra raises nearly anything
        raise explained(error) from error


def overridden(config: Config, words: list[str]) -> Config:
    """`config` with overrides applied; `group=name` replaces a component, with its defaults."""
    values = parsed(words)
    try:
        node = plain_node(config.to_plain())
        for key, value in values.items():
            if key in GROUPS:
                GROUPS[key][str(value)]  # raises UnknownNameError
                node[key] = _compose([f"{key}={value}"])[key]
        for key, value in values.items():
            if key not in GROUPS:
                OmegaConf.update(node, key, value, force_add=False)
        return from_plain(OmegaConf.to_container(node, resolve=True))  # type: ignore[arg-type]
    except (OmegaConfBaseException, ValueError, OverflowError) as error:
        raise in_words(error) from error


def parsed(words: list[str]) -> dict[str, Any]:
    """The keys and values of plain overrides such as `hidden=5`. Raises ConfigError for other words."""
    try:
        overrides: list[Override] = OverridesParser.create().parse_overrides(in_grammar(words))
        if unsupported := [o for o in overrides if o.is_sweep_override() or o.is_add() or o.is_delete()]:
            raise ConfigError(f"'{unsupported[0].input_line}' is not of the form KEY=VALUE.")
        return {override.key_or_group: override.value() for override in overrides}
    except HydraException as error:
        raise explained(error) from error


def refuse_conflicting(words: list[str]) -> None:
    """Raises ConfigError for two words that set the same thing, so that one would have no effect."""
    keys = {word.split("=")[0].lstrip("+") for word in words}
    if "match_parameters" in keys and (sizes := keys & {"hidden", "cell.hidden_size"}):
        raise ConfigError(f"match_parameters chooses hidden: leave out {sorted(sizes)[0]}.")
    if keys >= {"hidden", "cell.hidden_size"}:
        raise ConfigError("hidden and cell.hidden_size set the same number: leave out cell.hidden_size.")


def key_of(word: str) -> str:
    """The key of an override, without prefixes such as + and ~. Raises ConfigError."""
    try:
        return str(parse(word).key_or_group)
    except (HydraException, RecursionError) as error:
        raise explained(error) from error


def plugins_in(words: list[str]) -> list[str]:
    """The modules in `plugins=…`, which must be imported before anything is composed."""
    named = [word for word in words if word.startswith("plugins=")]
    value = parsed(named[-1:]).get("plugins", [])
    return [str(module) for module in (value if isinstance(value, list) else [value])]


def explained(error: Exception) -> RnnclfError:
    """An error from composing a configuration, as an RnnclfError with a one-sentence message."""
    for cause in causes(error):
        if isinstance(cause, RnnclfError):
            return cause
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            return _no_such_choice(cause)
    if isinstance(error, OverrideParseException):
        return ConfigError(f"'{error.override}' is not of the form KEY=VALUE.")
    if isinstance(error, OSError):  # from looking for a file of that name
        return ConfigError(f"A name among the words is not possible: {error.strerror}.")
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return ConfigError(f"These overrides do not give a valid configuration: {in_words(error)}")
    return in_words(error)


LAUNCHERS = {"ray": "ray", **dict.fromkeys(("joblib", "submitit_local", "submitit_slurm"), "launchers")}
"""The launchers that an extra installs, with its name."""


def _no_such_choice(error: MissingConfigException) -> ConfigError:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    if group in GROUPS:
        try:
            GROUPS[group][name]
        except RnnclfError as unknown:
            return ConfigError(str(unknown))
    known = list(error.options or [])
    if group == "hydra/launcher" and name in LAUNCHERS:
        extra = LAUNCHERS[name]
        if "'hydra/launcher/slurm'" in str(error):  # ours, which is made from submitit's
            name = "slurm"
        return ConfigError(f"{group}={name} is not installed: pip install 'rnnclf[{extra}]'.")
    listed = f" Known: {', '.join(known)}." if known else ""
    return ConfigError(f"No {group or 'configuration'} named '{name}'.{did_you_mean(name, known)}{listed}")
