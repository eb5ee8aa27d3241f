"""Read features.json: the backbones of a data set's features."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

from avsdn_tf.backbones import HUB, Backbones, as_fields
from avsdn_tf.errors import UserError
from avsdn_tf.features.extractor import MODALITIES, check_names
from avsdn_tf.features.visual import recipe_of
from avsdn_tf.files import expand_user
from avsdn_tf.schemas import Schema, Text, read_json
from tfds_ave.configs import AveConfig
from tfds_ave.errors import DatasetError
from tfds_ave.videos import SETTINGS


class _Settings(Schema):
    """Schema of features.json. Missing members have the package's defaults."""

    audio_network: Text = ""
    audio_weights: Text = ""
    vggish: Text = ""
    visual_network: Text = ""
    visual_weights: Text = ""
    visual_precision: Text = ""
    empty: Text = ""


def read_settings(
    folder: pathlib.Path, config: AveConfig
) -> tuple[Backbones, str | None]:
    """Return the backbones in features.json, and the modality that videos may lack.

    The file and all its members are optional. Paths are relative to `folder`.
    """
    members = _read(folder)
    empty = members.pop("empty", None)
    backbones = Backbones().override(**members).complete()
    check_names(backbones, empty)
    shape = visual_shape_of(backbones)
    if shape is not None:
        check_fixed(config, "visual_network", backbones, shape, config.visual_shape)
    located = {}
    for modality in MODALITIES:
        name = f"{modality}_weights"
        value = getattr(backbones, name)
        if value != backbones.known_source(modality):
            field = backbones.weights_field(modality)
            located[name] = _locate(value, field, folder)
    return dataclasses.replace(backbones, **located), empty


def describe_features(folder: pathlib.Path) -> dict[str, str | None]:
    """Return the fields of `Backbones` in the features.json of feature files.

    Names of networks and weights may be any text, because other programs may have
    written the files.
    """
    members = _read(folder)
    if "empty" in members:
        raise UserError(
            "This member applies to videos only. Received feature files.",
            field="empty",
            value=members["empty"],
        )
    return Backbones(**as_fields(**members)).to_dict()


def _read(folder: pathlib.Path) -> dict[str, str]:
    """Return the members of features.json, if the file exists."""
    path = folder / SETTINGS
    if not path.is_file():
        return {}
    content = f"a JSON object with some of {', '.join(_Settings.model_fields)}"
    return read_json(path, _Settings, content).model_dump(exclude_unset=True)


def visual_shape_of(backbones: Backbones) -> tuple[int, ...] | None:
    """Return the shape of a second's visual feature.

    Returns None for networks of TensorFlow Hub, whose shape is unknown before loading.
    """
    if backbones.visual_network == HUB:
        return None
    return recipe_of(backbones.visual_network).shape


def _locate(value: str, name: str, folder: pathlib.Path) -> str:
    """Return a URL unchanged, or the absolute path of a file or folder."""
    if "://" in value:
        return value
    path = folder / expand_user(value)
    if not path.exists():
        raise UserError(
            f"{path} does not exist. Expected a path relative to {folder}, an absolute "
            "path, or an address (https://...).",
            field=name,
            value=value,
        )
    return str(path.resolve())


def check_fixed(
    config: AveConfig, field: str, backbones: Backbones, received: Any, expected: Any
) -> None:
    """Raise UserError if features don't have the shape or width that a config fixes."""
    if config.source == "videos" and received != expected:
        raise UserError(
            f"Its features have the shape or width {received}. Expected {expected}, "
            f"which is fixed for config {config.name!r}: choose another backbone, or "
            "config 'custom'.",
            field=field,
            value=getattr(backbones, field),
        )


@contextlib.contextmanager
def name_settings(folder: pathlib.Path) -> Iterator[None]:
    """Convert errors about backbones to errors about members of features.json.

    Without the file, the errors are about the default backbones.
    """
    try:
        yield
    except UserError as error:
        path = folder / SETTINGS
        messages = []
        for each in getattr(error, "errors", [error]):
            where = "" if each.field is None else f'"{each.field}": {each.value!r}: '
            if where and path.is_file():
                where = f"{path}: {where}"
            messages.append(where + each.message)
        raise DatasetError("\n".join(messages)) from error
