"""Tables for papers: nothing in a name is a command, and LaTeX takes them as they are."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from rnnclf.console.sheets import Sheet, latex, latex_text, markdown

SPECIAL = r"\ & % $ # _ { } ~ ^ < > | \" ' ` * ± × –"
HOSTILE = (
    SPECIAL,
    r"\input{x} \end{tabular}",
    "[1].csv",
    "*",
    "a--b ,,c ?`d",
    "^^41 $x$",
    "é ü ñ",
    "-1.5 to -0.5",
)
SHEET = Sheet("a title_", ("[", "with %"), tuple((text, text) for text in HOSTILE), ("note_",), words=(0, 1))


@pytest.mark.parametrize("char", SPECIAL.split())
def test_a_special_character_is_plain_text_in_latex(char):
    written = latex_text(f"a{char}b")
    assert written[0] + written[-1] == "ab"
    assert written.count("{") == written.count("}") or char in "{}"
    assert not re.search(r"(?<!\\)[&%#_]|[~<>|\"'`±×–]", written)


def test_a_table_has_as_many_cells_in_each_line_whatever_its_names():
    lines = [line for line in latex([SHEET]).splitlines() if line.endswith("\\\\")]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in lines] == [1] * (1 + len(HOSTILE))
    hostile = Sheet("t", ("a", "b"), (("x|y", "<b>*z*</b>"),))
    rows = [line for line in markdown([hostile]).splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3, 3, 3]
    assert r"\<b\>\*z\*\</b\>" in rows[-1]


@pytest.mark.parametrize(
    ("text", "written"),
    [("-2.71 to +4", "$-$2.71 to +4"), ("lr=-1", "lr=$-$1"), ("2026-11-30", "2026-11-30"), ("1e-5", "1e-5")],
)
def test_only_the_sign_of_a_number_is_a_minus_in_latex(text, written):
    assert latex_text(text) == written


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["pdflatex", "xelatex"])
@pytest.mark.parametrize("package", ["", "\\usepackage{booktabs}"])
def test_latex_compiles(tmp_path, engine, package):
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed here")
    (tmp_path / "table.tex").write_text(latex([SHEET, SHEET]))
    document = f"\\documentclass{{article}}{package}\\begin{{document}}\\input{{table}}\\end{{document}}"
    (tmp_path / "paper.tex").write_text(document)
    words = [engine, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
