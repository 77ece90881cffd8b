"""From a document to one HTML file. It loads nothing, and runs no script but its own.

All text is escaped by Jinja's autoescape. The page also forbids, by a Content-Security-Policy that names the
hash of its script, every other script and every request: should text ever come through as markup, the browser
does not run it.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from rnnclf.escaping import harmless, one_line
from rnnclf.report.document import Document

if TYPE_CHECKING:
    import jinja2


def page(document: Document) -> str:
    """The HTML of a document."""
    script = _text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html: str = (
        _environment()
        .get_template("page.html.j2")
        .render(document=document, style=_text("page.css"), script=script, script_hash=f"sha256-{digest}")
    )
    return harmless(html)


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rnnclf.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["line"] = one_line
    return environment


def _text(name: str) -> str:
    return files("rnnclf.report").joinpath("templates", name).read_text("utf-8")
