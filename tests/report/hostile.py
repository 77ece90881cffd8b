"""Names that would do something if they were not taken for text."""

from __future__ import annotations

from pathlib import Path

NAMES = (
    "<script>document.title='run'</script>",
    "</script><img src=x onerror=\"document.title='run'\">",
    "=cmd('calc')",
    "{{7*7}}{% raw %}",
    "'\" onmouseover=\"document.title='run'",
    "\x1b[31mred\u202eright to left",
    "]]>&lt;b&gt;--><style>*{display:none}</style>",
)


def write_table(path: Path) -> None:
    """A table of a few sequences, whose classes, ids, channel and file are hostile."""
    lines = [f'id,time,"{_cell("<u>channel</u>")}",label']
    for n in range(84):
        name = NAMES[n % len(NAMES)]
        for t in range(5):
            lines.append(
                f'"{_cell(f"<i>{n}</i>")}",{t},{(n % len(NAMES)) * 0.2 + t * (n % 3)},"{_cell(name)}"'
            )
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _cell(text: str) -> str:
    return text.replace('"', '""')
