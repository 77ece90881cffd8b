"""A progress bar while data are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn

from rnnclf.console.screen import SafeConsole


@contextmanager
def reading_display() -> Iterator[Callable[[str, float], None]]:
    """Shows a progress bar on stderr while data are read; nothing without a terminal."""
    console = SafeConsole(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=1)
        yield lambda what, share: bar.update(task, description=what, completed=share)
