"""`report.html` and `report.md` of an evaluation.

The page is one file: no script, no font and no image is fetched, and its own content security policy forbids it. What
comes from outside (statements, programs, responses, names) is escaped by the template engine, after hostile.py has
made it visible.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from daj_lightning.evaluation.document import Document
from daj_lightning.evaluation.hostile import visible
from daj_lightning.evaluation.markdown import as_markdown
from daj_lightning.evaluation.results import Evaluation
from daj_lightning.evaluation.sections import compose


def write_report(evaluation: Evaluation, directory: Path) -> None:
    """Write `report.html` and `report.md`, both with the same content, into `directory`."""
    document = compose(evaluation)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.html").write_text(as_html(document), encoding="utf-8")
    (directory / "report.md").write_text(as_markdown(document), encoding="utf-8")


def as_html(document: Document) -> str:
    """One self-contained page."""
    environment = Environment(
        loader=PackageLoader("daj_lightning.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        keep_trailing_newline=True,
    )
    environment.filters["unbroken"] = _unbroken
    assert environment.loader is not None
    style = environment.loader.get_source(environment, "style.css")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = environment.get_template("report.html.j2")
    return template.render(document=document, style=Markup(style), style_hash=f"sha256-{digest}")


def _unbroken(text: str) -> Markup:
    """A number and its percent sign stay on one line, and so does an option."""
    safe = str(escape(visible(text))).replace(" %", "\u00a0%")
    return Markup(re.sub(r"(?<![\w-])--[a-z_]+", r"<code>\g<0></code>", safe))


def _visible(value: Any) -> Any:
    """Of every expression in the template: nothing hidden, even where a caller forgot."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
