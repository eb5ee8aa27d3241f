"""features.json: the backbones that make, or have made, a data set's features."""

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
    """features.json; members that are not given keep the defaults of the package."""

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
    """Return the backbones that features.json names, and what videos may lack.

    The file and each of its members are optional. Paths are relative to its folder.
    """
    given = _read(folder)
    empty = given.pop("empty", None)
    backbones = Backbones().override(**given).complete()
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
    """Return the fields of `Backbones` that features.json names of feature files.

    Other programs have made the files: names of networks are free, and weights are
    texts.
    """
    given = _read(folder)
    if "empty" in given:
        raise UserError(
            "Expected it where features are made of videos. These are feature files.",
            field="empty",
            value=given["empty"],
        )
    return Backbones(**as_fields(**given)).to_dict()


def _read(folder: pathlib.Path) -> dict[str, str]:
    """Return the members of features.json, if there is one."""
    path = folder / SETTINGS
    if not path.is_file():
        return {}
    what = f"a JSON object with some of {', '.join(_Settings.model_fields)}"
    return read_json(path, _Settings, what).model_dump(exclude_unset=True)


def visual_shape_of(backbones: Backbones) -> tuple[int, ...] | None:
    """Return the shape of a second's visual feature, None if only the network tells."""
    if backbones.visual_network == HUB:
        return None
    return recipe_of(backbones.visual_network).shape


def _locate(value: str, name: str, folder: pathlib.Path) -> str:
    """Return an address unchanged, and the absolute path of a file or folder."""
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
    config: AveConfig, field: str, backbones: Backbones, found: Any, expected: Any
) -> None:
    """Check the shape or the width of features if the config fixes it."""
    if config.source == "videos" and found != expected:
        raise UserError(
            f"Its features have the shape or width {found}. Expected {expected}, which "
            f"is fixed for config {config.name!r}: choose another backbone, or config "
            "'custom'.",
            field=field,
            value=getattr(backbones, field),
        )


@contextlib.contextmanager
def name_settings(folder: pathlib.Path) -> Iterator[None]:
    """Turn an error about a backbone into one about its member of features.json."""
    try:
        yield
    except UserError as error:
        path = folder / SETTINGS
        messages = []
        for each in getattr(error, "errors", [error]):
            member = f'"{each.field}": {each.value!r}'
            where = "" if each.field is None else f"{path}: {member}: "
            messages.append(where + each.message)
        raise DatasetError(" ".join(messages)) from error
