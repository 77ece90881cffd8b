"""What was sent to a tracker, and how to look at it."""

from __future__ import annotations

from rnnclf.console.screen import print_note, print_plain, short
from rnnclf.workflows.tracking import Tracked


def show_tracked(tracked: Tracked) -> None:
    for path, epochs in tracked.runs:
        print_plain(f"{tracked.tracker} has {epochs:,} epoch{'' if epochs == 1 else 's'} of {short(path)}")
    print_plain(f"look at it: {tracked.viewer}")
    for note in tracked.notes:
        print_note(note)
