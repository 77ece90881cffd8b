"""Text as a value in Hydra's grammar, which takes 2024_01_15 for a number and é for an error."""

from __future__ import annotations

import re
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from rnnclf.config_reading import escaped

FUNCTION = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag|str|int|float|bool)\(.*\)", re.DOTALL)
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*", re.ASCII)


def quoted(text: str) -> str:
    """The text as a quoted value. A `${…}` in it is still resolved: see `literal`."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def is_resolved(text: str) -> bool:
    """Whether the text holds a `${…}` that is replaced when a configuration is resolved."""
    return any(len(found[1]) % 2 == 0 for found in re.finditer(r"(\\*)\$\{", text))


def literal(text: str) -> str:
    """The value that means exactly this text: quoted unless the grammar reads the same without quotes."""
    return text if _is_plain(text) else quoted(escaped(text))


def is_quoted(text: str) -> bool:
    """Whether the whole text is one quoted value."""
    return bool(_QUOTED.fullmatch(text)) and read(text) is not None


def meant(text: str) -> str:
    """The text that a value means, if it is quoted; else the value itself."""
    if not is_quoted(text):
        return text
    return re.sub(r"(\\*)\\\$\{", lambda found: found[1][: len(found[1]) // 2] + "${", str(read(text)))


def read(text: str) -> Any:
    """The value that Hydra reads, without resolving anything; None if that is null, or it cannot read any."""
    try:
        return parse(f"key={text}").value()
    except (HydraException, RecursionError):
        return None


def parse(word: str) -> Override:
    """One word as Hydra understands it. Raises HydraException or RecursionError."""
    (override,) = OverridesParser.create().parse_overrides([word])
    return override


def is_about_hydra(word: str) -> bool:
    """Whether an override, also one with + or ~ in front, chooses or configures a part of Hydra."""
    return word.lstrip("+~").startswith(("hydra/", "hydra."))


def _is_plain(text: str) -> bool:
    return bool(_PLAIN.fullmatch(text)) and read(text) == text


def parts(text: str) -> list[str]:
    """The text split at commas, except those inside brackets or quotes that open at the start of a part."""
    found = []
    while (end := text.find(",", _group_length(text))) >= 0:
        found.append(text[:end].strip())
        text = text[end + 1 :].lstrip()
    return [*found, text.strip()]


def _group_length(text: str) -> int:
    """The length of the quoted or bracketed beginning of the text; 0 if there is none, or it never ends."""
    if text[:1] not in ("'", '"', "[", "{"):
        return 0
    depth = 0
    for token in re.finditer(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[\[\]{}]""", text, re.DOTALL):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return 0
