"""The bar of a run on a terminal."""

import io

from rnnclf.console import training
from rnnclf.console.screen import SafeConsole
from rnnclf.training.state import BatchProgress


def test_the_bar_fits_into_a_window_that_is_narrowed(monkeypatch):
    """Else the window would wrap it, and the rest would stay on the screen."""
    console = SafeConsole(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr(training, "screen", lambda: console)
    display = training.LiveDisplay()
    display.epochs, display.task = 100, display.progress.add_task("epoch 1", total=100, accuracy="", speed="")
    display.batch(BatchProgress(epoch=100, seen=50, of=60, correct=50))
    with console.capture() as said:
        console.print(display.progress.get_renderable())
    (line,) = said.get().splitlines()
    assert "train acc. 100.00 %" in line
    assert len(line) <= 85
