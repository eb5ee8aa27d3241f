"""HTML of the pages, by the files in `templates/` and `static/`."""

import pathlib
from typing import Any

import jinja2
from markupsafe import Markup

from avsdn_tf.report.scores import percent
from avsdn_tf.text import printable_lines, short_name

STATIC = pathlib.Path(__file__).parent / "static"


def render(name: str, **values: Any) -> str:
    """Return a page that loads nothing from elsewhere; a missing value raises."""
    return ENVIRONMENT.get_template(name).render(**values)


def _static(name: str) -> Markup:
    """Return a file of `static/` as it is: style sheets and scripts become inline."""
    return Markup((STATIC / name).read_text(encoding="utf-8"))


def _showable(value: Any) -> Any:
    """Return a value that is put into a page; markup stays as it is."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable_lines(value) if is_text else value


def _clock(seconds: float) -> str:
    """Return a time as people write it, such as 1:05.5; the same as in player.js."""
    minutes, rest = divmod(round(seconds, 2), 60)
    hours, minutes = divmod(int(minutes), 60)
    # "05.5", but "05" for a whole second.
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
