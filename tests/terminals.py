"""The lines that a terminal shows."""

from __future__ import annotations

import re

ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def lines_of(output: str) -> list[str]:
    return [line.rstrip() for line in re.split(r"[\r\n]+", ANSI.sub("", output))]
