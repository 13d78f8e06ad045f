"""Renders templates to HTML. Every value is escaped."""

from __future__ import annotations

import json
import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.catalog import facts
from zoo.catalog.commands import Command
from zoo.catalog.listing import line_title
from zoo.catalog.place import Place
from zoo.util.names import counted

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
ASSETS = (
    "style.css", "noscript.css", "search.js", "catalog.js", "use.js", "copy.js", "icon.svg",
)  # fmt: skip
"""Files that are copied to the site unchanged."""


@cache
def environment() -> Environment:
    """Returns the templates' environment, which escapes values and rejects undefined names."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,  # the templates do not change while the site is built
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {
        "mib": facts.mib,
        "rate": facts.rate,
        "cosine": facts.cosine,
        "when": facts.when,
        "json_block": json_block,
        "json_text": lambda value: json.dumps(value, ensure_ascii=False),
        "line_title": line_title,
        "machine": facts.machine_words,
    }
    jinja.globals |= {
        "badges": facts.badges,
        "legend": facts.LEGEND,
        "archs_of": facts.archs_of,
        "best_rate": facts.best_rate,
        "engine_page": facts.engine_page,
        "model_page": facts.model_page,
        "as_command": as_command,
        "reproduction": reproduction,
        "counted": counted,
        "precision_words": facts.precision_words,
        "runtime_words": facts.runtime_words,
        "verified_columns": facts.verified_columns,
        "worst_cosine": facts.worst_cosine,
    }
    return jinja


def render(template: str, **values: Any) -> bytes:
    """Returns a template's page, encoded in UTF-8."""
    return environment().get_template(template).render(**values).encode()


def as_command(title: str, text: str, language: str = "sh") -> Command:
    """Returns a command for a template to show."""
    return Command(title=title, text=text, language=language)


def reproduction(command: str, place: Place) -> str:
    """Returns the command of a failed job as a checkout runs it; another's command as it is."""
    try:
        program, *words = shlex.split(command)
    except ValueError:  # none, or a quote is not closed
        return command
    return place.farm(words) if program == "zoo-farm" else command


def json_block(value: Any) -> Any:
    """Returns JSON for a script element, escaped so that no string can end the element."""
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028"}
    for character, escape in escapes.items():
        text = text.replace(character, escape)
    return Markup(text)
