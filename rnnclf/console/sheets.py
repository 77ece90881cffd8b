"""Tables as Markdown and LaTeX: nothing in a name acts as a command."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rnnclf.escaping import one_line

_LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"},
    **{"<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}"},
    **{'"': "{\\char34}", "'": "{\\char39}", "`": "{\\char96}"},  # bare ones join: ?` is ¿
    **{"±": "$\\pm$", "×": "$\\times$", "–": "--", "*": "$^*$", "\N{REPLACEMENT CHARACTER}": "?"},
    "[": "{[}",  # at the start of a row it would be an option of the \\\\ or the rule above
}
_MINUS, _LIGATURE = r"(?<![\w-])-(?=\d)", r"-(?=-)|,(?=,)"
_CHARACTER = re.compile(rf"(?P<minus>{_MINUS})|(?P<ligature>{_LIGATURE})|.")

# so that the table compiles with and without \usepackage{booktabs}
RULES = "".join(f"\\providecommand{{\\{name}rule}}{{\\hline}}" for name in ("top", "mid", "bottom"))


@dataclass(frozen=True)
class Sheet:
    """A table of text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    """Sentences below it."""
    words: Collection[int] = (0,)
    """The columns that hold words, from 0; the others hold numbers."""


def markdown(sheets: Sequence[Sheet]) -> str:
    """The tables in GitHub's Markdown."""
    return "\n".join(_markdown(sheet) for sheet in sheets)


def _markdown(sheet: Sheet) -> str:
    lines = [sheet.columns, *sheet.rows]
    rows = [f"| {' | '.join(map(markdown_text, cells))} |" for cells in lines]
    sides = ["---" if n in sheet.words else "---:" for n in range(len(sheet.columns))]
    rows.insert(1, f"| {' | '.join(sides)} |")
    notes = [f"\n{markdown_text(note)}" for note in sheet.notes]
    return "\n".join([f"**{markdown_text(sheet.title)}**\n", *rows, *notes]) + "\n"


def markdown_text(text: str) -> str:
    """Text in which nothing is markup."""
    return re.sub(r"([\\`*_{}\[\]<>|~#&!])", r"\\\1", one_line(text))


def latex(sheets: Sequence[Sheet]) -> str:
    r"""The tables as LaTeX to \input, one tabular each."""
    return RULES + "\n" + "\n".join(_latex(sheet) for sheet in sheets)


def _latex(sheet: Sheet) -> str:
    sides = "".join("l" if n in sheet.words else "r" for n in range(len(sheet.columns)))
    head, *rows = [f"{' & '.join(map(latex_text, cells))} \\\\" for cells in (sheet.columns, *sheet.rows)]
    lines = [f"\\begin{{tabular}}{{{sides}}}", "\\toprule", head, "\\midrule", *rows, "\\bottomrule"]
    comments = [f"% {one_line(text)}" for text in (sheet.title, *sheet.notes)]
    return "\n".join([*comments, *lines, "\\end{tabular}"]) + "\n"


def latex_text(text: str) -> str:
    """Text in which nothing is a command, and in which the sign of a number is a minus, not a hyphen."""
    return _CHARACTER.sub(_written, one_line(text))


def _written(found: re.Match[str]) -> str:
    match found.lastgroup:
        case "minus":
            return "$-$"
        case "ligature":  # -- would become a dash, and ,, a quotation mark
            return f"{found[0]}{{}}"
        case _:
            return _LATEX.get(found[0], found[0])
