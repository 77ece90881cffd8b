"""Words for `rnnclf train <TAB>`, from Hydra's own completer. Stays free of torch."""

from __future__ import annotations

import os

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.plugins.completion_plugin import DefaultCompletionPlugin

from rnnclf.hydra_app.setup import conf_dir, register


def complete(words: list[str], incomplete: str) -> list[str]:
    """What `incomplete` may become after `words`: groups, their choices, keys, sweeps over choices."""
    broken_at_equals = False
    if "COMP_WORDS" in os.environ:  # bash breaks words at '=': train cell = b
        broken_at_equals, words, incomplete = _rejoined()
    if incomplete.startswith("-"):
        return []
    head, comma, tail = incomplete.rpartition(",")  # a sweep: cell=basic,l
    key, _, earlier = head.partition("=") if comma else (incomplete, "", "")
    asked = f"{key}={tail}" if comma else incomplete
    found = [word for word in _from_hydra(words, asked) if word.startswith(asked)]
    if comma:
        found = [word.replace("=", f"={earlier},", 1) for word in found]
    if broken_at_equals:
        found = [word.split("=", 1)[1] for word in found if "=" in word]
    return found


def _rejoined() -> tuple[bool, list[str], str]:
    raw = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
    words = "\n".join(raw[2:]).replace("\n=\n", "=").replace("\n=", "=").split("\n")
    return "=" in raw[-2:], words[:-1], words[-1]


def _from_hydra(words: list[str], asked: str) -> list[str]:
    plain = [word for word in words if "=" in word and "," not in word]
    try:
        register([])
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            plugin = DefaultCompletionPlugin(GlobalHydra.instance().config_loader())
            found = plugin._query(config_name="config", line=" ".join([*plain, asked]))
    except Exception:  # a half-typed line is no reason to print a traceback into the shell
        return []
    return [word for word in found if not word.startswith("schema")]
