"""Runs a claim on a cell, and reports the outcome.

A claim is a function of a cell's class whose docstring states it in words. It raises `BrokenError` if the
cell does not satisfy it, and `UntestableError` if it cannot be tested here.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rnnclf.cells.base import Cell
from rnnclf.docstrings import docstring_of

CellType = type[Cell]
Claim = Callable[[CellType], None]


class BrokenError(Exception):
    """A cell does not satisfy a claim; the message says in which case."""


class UntestableError(Exception):
    """A claim cannot be tested for this cell here; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of one claim: kept, broken or not tested, and the reason."""

    claim: str
    outcome: str
    reason: str = ""


def words(claim: Claim) -> str:
    """The sentence that states a claim."""
    return docstring_of(claim).partition("\n")[0].rstrip(".")


def verdict(claim: Claim, kind: CellType) -> Verdict:
    """Tests one claim on a cell. An error in the cell's own code also breaks the claim."""
    try:
        claim(kind)
    except BrokenError as error:
        return Verdict(words(claim), "broken", str(error))
    except UntestableError as error:
        return Verdict(words(claim), "not tested", str(error))
    except Exception as error:
        location = traceback.extract_tb(error.__traceback__)[-1]
        first_line = (str(error).splitlines() or [""])[0]
        return Verdict(
            words(claim),
            "broken",
            f"{type(error).__name__} in {Path(location.filename).name}, line {location.lineno}: {first_line}",
        )
    return Verdict(words(claim), "kept")
