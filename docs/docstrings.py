"""Lets mkdocstrings read the sections that docstrings of Keras layers have."""

import re
from typing import Any

import griffe

# What Keras calls a section, and what griffe reads as a list of parameters with that
# title, or as code.
_SECTIONS = {
    r"^Call arguments:$": "Args: Call arguments:",
    r"^Example:$": "Examples:",
}


class KerasSections(griffe.Extension):
    """Names Keras's own sections as griffe knows them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Renames the sections of an object's docstring."""
        if obj.docstring:
            for keras_name, name in _SECTIONS.items():
                obj.docstring.value = re.sub(
                    keras_name, name, obj.docstring.value, flags=re.MULTILINE
                )
