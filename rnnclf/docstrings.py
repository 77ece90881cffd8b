"""Docstrings that are shown to people: descriptions of components, commands, metrics and claims."""

import ast
import inspect
import sys
import textwrap
from typing import Any


def docstring_of(thing: Any) -> str:
    """The docstring of a class, of the class of an object, or of a function; "" if there is none.

    `python -OO` drops docstrings; then it is read from the source file. A dataclass without a docstring has a
    signature in its place, which describes nothing.
    """
    thing = thing if isinstance(thing, type) or inspect.isfunction(thing) else type(thing)
    text = _in_source(thing) if sys.flags.optimize >= 2 else inspect.getdoc(thing) or ""
    return "" if text.startswith(f"{thing.__name__}(") else text


def _in_source(thing: Any) -> str:
    try:
        (statement,) = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
        return ast.get_docstring(statement) or ""  # type: ignore[arg-type]
    except (OSError, TypeError, SyntaxError, ValueError):  # a class defined in a shell has no source
        return ""
