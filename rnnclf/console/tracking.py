"""What was sent to a tracker, and how to look at it."""

from __future__ import annotations

from rnnclf.console.screen import print_note, print_plain, short
from rnnclf.workflows.tracking import Tracked


def show_viewer(viewer: str) -> None:
    print_plain(f"see it in the tracker: {viewer}")


def show_tracked(tracked: Tracked) -> None:
    for path, epochs in tracked.runs:
        print_plain(f"{tracked.tracker} has {epochs:,} epoch{'' if epochs == 1 else 's'} of {short(path)}")
    show_viewer(tracked.viewer)
    for note in tracked.notes:
        print_note(note)
