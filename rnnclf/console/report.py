"""Says where a report was written."""

from __future__ import annotations

from rnnclf.console.screen import print_plain, short
from rnnclf.workflows.report import Written


def show_written(written: Written) -> None:
    print_plain(f"report: {short(written.path)} ({written.size / 1e6:.1f} MB); open it in a browser")
