"""Read untrusted JSON files: bounded in size, and strictly validated."""

import codecs
import os
import pathlib
from typing import Annotated, Any, TypeVar

import pydantic
from typing_extensions import TypeAliasType

from avsdn_tf.errors import UserError
from avsdn_tf.files import open_regular

# Pydantic's errors about invalid members can take 500 times the file's size in memory.
MAX_JSON_BYTES = 2**20
_SHOWN_PROBLEMS = 3
_SHOWN_CHARACTERS = 80
_T = TypeVar("_T")


class Schema(pydantic.BaseModel):
    """Base of the schemas of JSON files.

    Types are strict: `"3"` and `true` are not numbers, 3 is a valid float, NaN and
    infinity are invalid. Unknown members are errors unless a subclass sets
    `extra="ignore"`.
    """

    model_config = pydantic.ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False
    )


# Names, paths and URLs, without control characters.
Text = Annotated[
    str, pydantic.StringConstraints(max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")
]

# Any JSON value whose numbers are finite.
Json = TypeAliasType(
    "Json",
    "str | bool | int | pydantic.FiniteFloat | list[Json] | dict[str, Json] | None",
)


def read_json(
    path: pathlib.Path,
    schema: type[_T],
    what: str,
    *,
    max_bytes: int = MAX_JSON_BYTES,
) -> _T:
    """Read a JSON file and validate it.

    Args:
        path: The file, in UTF-8.
        schema: A `Schema`, or another type that pydantic validates.
        what: Description of the content, for the message: "the settings of a run".
        max_bytes: Largest accepted size.

    Returns:
        The content as an instance of `schema`.

    Raises:
        UserError: If the file can't be read, exceeds `max_bytes`, is not JSON, or
            doesn't match the schema; the message names the path and the first invalid
            members.
    """
    try:
        content = read_bytes(path, max_bytes)
        return parse_json(content, schema)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: expected {what}. Received: {reason}") from error


def parse_json(content: bytes, schema: type[_T]) -> _T:
    """Return JSON as an instance of a schema; raise ValueError if it doesn't match."""
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return pydantic.TypeAdapter(schema).validate_json(content, strict=True)
    except pydantic.ValidationError as error:
        raise ValueError(describe(error)) from None


def describe(error: pydantic.ValidationError) -> str:
    """Return one line that names the first invalid members."""
    problems = [_describe_one(problem) for problem in error.errors(include_url=False)]
    more = len(problems) - _SHOWN_PROBLEMS
    shown = "; ".join(problems[:_SHOWN_PROBLEMS])
    return f"{shown}; and {more} more" if more > 0 else shown


def _describe_one(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    text = problem["msg"]
    if problem["type"] not in ("json_invalid", "missing"):
        # ascii() escapes control characters, which terminals would interpret.
        text += f", not {ascii(problem['input'])[:_SHOWN_CHARACTERS]}"
    return f"{ascii(place)[1:-1][:_SHOWN_CHARACTERS]}: {text}" if place else text


def read_bytes(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: If the file can't be read.
        ValueError: If the file is not a regular file, or longer than `max_bytes`.
    """
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"more than {max_bytes:,} bytes")
    return content
