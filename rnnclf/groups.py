"""Groups of commands: a word that is no command is answered with the nearest one."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from rnnclf.errors import RnnclfError
from rnnclf.registry import nearest

MEANT = {
    **dict.fromkeys(("fit", "run", "learn", "training"), "train"),
    **dict.fromkeys(("sweep", "multirun", "compare", "grid"), "train -m"),
    **dict.fromkeys(("evaluate", "test", "score", "predict", "classify", "validate"), "eval"),
    **dict.fromkeys(("continue", "restart"), "resume"),
    **dict.fromkeys(("info", "describe", "status"), "inspect"),
    **dict.fromkeys(("explain", "options"), "show"),
    **dict.fromkeys(("benchmark", "speed", "time"), "bench"),
    **{"check": "data check", "make": "data make", "help": "--help", "version": "--version"},
}
"""Words that people type for a command, and the command."""


class Group(TyperGroup):
    """Commands of which the nearest is named if one does not exist."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if ctx.resilient_parsing or self.get_command(ctx, word) or word.startswith("-"):
            return super().resolve_command(ctx, args)
        known = {name: name for name in self.commands}
        if ctx.parent is None:
            known |= MEANT
        if "=" in word and ctx.parent is None:
            meant = f"train {' '.join(args)}"
        else:
            near = nearest(word, known)
            meant = known[near] if near else ""
        hint = f" Did you mean '{ctx.command_path} {meant}'?" if meant else ""
        raise RnnclfError(f"No command named '{word}'.{hint} All commands: {ctx.command_path} --help.")
