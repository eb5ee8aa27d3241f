"""Render the pages from the files in `templates/` and `static/`."""

import pathlib
from typing import Any

import jinja2
from markupsafe import Markup

from avsdn_tf.report.scores import percent
from avsdn_tf.text import printable_lines, short_name

STATIC = pathlib.Path(__file__).parent / "static"


def render(name: str, **values: Any) -> str:
    """Render a template; a missing value raises `jinja2.UndefinedError`."""
    return ENVIRONMENT.get_template(name).render(**values)


def _static(name: str) -> Markup:
    """Return the content of a style sheet or script, unescaped."""
    return Markup((STATIC / name).read_text(encoding="utf-8"))


def _showable(value: Any) -> Any:
    """Make strings printable, except markup."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable_lines(value) if is_text else value


def _clock(seconds: float) -> str:
    """Format a time, such as 1:05.5, in the same way as player.js."""
    minutes, rest = divmod(round(seconds, 2), 60)
    hours, minutes = divmod(int(minutes), 60)
    padded = f"{rest:05.2f}".rstrip("0").rstrip(".")
    return f"{hours}:{minutes:02d}:{padded}" if hours else f"{minutes}:{padded}"


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=_showable,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals["static"] = _static
ENVIRONMENT.filters["clock"] = _clock
ENVIRONMENT.filters["percent"] = percent
ENVIRONMENT.filters["short_name"] = short_name
ENVIRONMENT.policies["json.dumps_kwargs"] = {
    "allow_nan": False,
    "separators": (",", ":"),
}
