"""Let mkdocstrings read the sections of Keras layers' docstrings, and link names."""

import pathlib
import re
from typing import Any

import griffe

# Keras's section titles, and titles that griffe parses as arguments or examples.
_SECTIONS = {
    r"^Call arguments:$": "Args: Call arguments:",
    r"^Example:$": "Examples:",
}
_PAGES = pathlib.Path(__file__).parent / "api"
# Full names of the objects on the API pages, by the last part of the name.
_NAMES = {
    name.rpartition(".")[2]: name
    for page in sorted(_PAGES.glob("*.md"))
    for name in re.findall(r"^::: (\S+)", page.read_text("utf-8"), re.MULTILINE)
}
# Matches `AVSDN`, `avsdn_tf.AVSDN` and `avsdn_tf.AVSDN(["Bark"])`.
_CODE = re.compile(r"(?<![\[`])`((?:\w+\.)*(\w+))(?:\([^`\n]*\))?`(?![\]`])")


class KerasSections(griffe.Extension):
    """Rename Keras's sections for griffe, and link names of the API."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Edit the docstring of an object."""
        if not obj.docstring:
            return

        def link(match: re.Match[str]) -> str:
            code, path, last = match[0], match[1], match[2]
            name = _NAMES.get(last)
            # A plain word may be no API name: `train` may be a split.
            is_plain = path.islower() and path.isalpha()
            if name is None or is_plain or last == obj.name:
                return code
            return f"[{code}][{name}]" if f".{name}".endswith(f".{path}") else code

        text = obj.docstring.value
        for keras_name, name in _SECTIONS.items():
            text = re.sub(keras_name, name, text, flags=re.MULTILINE)
        obj.docstring.value = _CODE.sub(link, text)
