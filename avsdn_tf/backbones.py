"""Backbones: the frozen networks that compute audio and visual features."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from avsdn_tf.errors import UserError, call_all
from avsdn_tf.files import expand_user, hash_file

VGGISH = "https://tfhub.dev/google/vggish/1"
YAMNET = "https://tfhub.dev/google/yamnet/1"
IMAGENET = "imagenet"
# Network name of every TensorFlow Hub module and SavedModel.
HUB = "hub"
_AUDIO_SOURCES = {"vggish": VGGISH, "yamnet": YAMNET, "yamnet_scores": YAMNET}
_MODALITIES = ("audio", "visual")


@dataclasses.dataclass(frozen=True)
class Backbones:
    """The networks that computed audio and visual features, and their weights.

    Feature files, data sets, runs and saved models record these fields, so that
    prediction uses the same networks as training. A field that isn't recorded is None.

    Attributes:
        audio_network: A name of `features.audio.AUDIO_NETWORKS`, or `"hub"`.
        audio_weights: URL, file or folder of the audio network's weights.
        visual_network: A name that `features.visual.recipe_of` accepts, or `"hub"`.
        visual_weights: `"imagenet"` or a weights file; for `"hub"`, a URL or folder.
        visual_precision: Keras dtype policy of the visual network, such as `"float32"`.
        audio_sha256: SHA-256 of local audio weights, as `checksum` returns it.
        visual_sha256: SHA-256 of local visual weights, as `checksum` returns it.

    Example:
        >>> backbones = avsdn_tf.Backbones().override(visual_network="EfficientNetV2B0")
        >>> backbones.complete().audio_network
        'vggish'
    """

    audio_network: str | None = None
    audio_weights: str | None = None
    visual_network: str | None = None
    visual_weights: str | None = None
    visual_precision: str | None = None
    # Not compared: records of version 0.1.0 have no checksums.
    audio_sha256: str | None = dataclasses.field(default=None, compare=False)
    visual_sha256: str | None = dataclasses.field(default=None, compare=False)

    @property
    def is_complete(self) -> bool:
        """Whether networks and weights of both modalities are recorded."""
        return None not in (
            *(self.audio_network, self.audio_weights),
            *(self.visual_network, self.visual_weights),
        )

    def known_source(self, modality: str) -> str | None:
        """Return the default weights of a modality's network, or None.

        Default weights come from known publishers, so they load without the caller's
        consent.
        """
        if modality == "visual":
            return None if self.visual_network == HUB else IMAGENET
        return _AUDIO_SOURCES.get(self.audio_network or "vggish")

    def weights_field(self, modality: str) -> str:
        """Return the name of the argument that sets a modality's weights."""
        is_vggish = modality == "audio" and self.audio_network in (None, "vggish")
        return "vggish" if is_vggish else f"{modality}_weights"

    def resolve(self) -> "Backbones":
        """Return a copy with absolute paths, and with checksums of local files."""
        resolved: dict[str, str | None] = {}
        for modality in _MODALITIES:
            value = getattr(self, f"{modality}_weights")
            is_known = value in (None, self.known_source(modality))
            if not is_known and os.path.exists(value):
                resolved[f"{modality}_weights"] = str(pathlib.Path(value).resolve())
                # An unreadable file fails when it is loaded, with a better message.
                with contextlib.suppress(OSError, ValueError):
                    resolved[f"{modality}_sha256"] = checksum(value)
        return dataclasses.replace(self, **resolved)

    def override(self, **given: str | None) -> "Backbones":
        """Return a copy in which the given fields replace the recorded ones.

        If a network is given without weights, its weights become None.

        Args:
            **given: Fields; None leaves a field as it is. `audio_network` and
                `visual_network` may also be the URL or folder of a module. `vggish`,
                the URL or path of VGGish weights, sets both `audio_network` and
                `audio_weights`.
        """
        fields = as_fields(**given)
        for modality in _MODALITIES:
            if f"{modality}_network" in fields or f"{modality}_weights" in fields:
                fields.setdefault(f"{modality}_sha256", None)
            if f"{modality}_network" in fields:
                fields.setdefault(f"{modality}_weights", None)
        return dataclasses.replace(self, **fields)

    def complete(self) -> "Backbones":
        """Return a copy with defaults for the fields that are not recorded.

        The defaults are VGGish, and pooled ResNet-152 in float32, with public weights.
        """
        named = dataclasses.replace(
            self,
            audio_network=self.audio_network or "vggish",
            visual_network=self.visual_network or "resnet152",
            visual_precision=self.visual_precision or "float32",
        )
        return dataclasses.replace(
            named,
            audio_weights=self.audio_weights or named.known_source("audio"),
            visual_weights=self.visual_weights or named.known_source("visual"),
        )

    def check_trusted(self, given: Mapping[str, str | None]) -> None:
        """Check that backbones recorded in a file are safe to load.

        The file may be untrusted, and loading a module runs the module's code. The
        caller must pass all weights that don't come from `known_source`.

        Args:
            given: The caller's arguments, as for `override`.

        Raises:
            UserError: If recorded weights don't come from `known_source` and the caller
                passes no weights, or if passed weights don't match the recorded
                checksum.
        """
        fields = as_fields(**given)
        call_all(
            *(functools.partial(self._check_weights, m, fields) for m in _MODALITIES)
        )

    def _check_weights(self, modality: str, given: Mapping[str, str | None]) -> None:
        """Check the recorded weights of a modality, as in `check_trusted`."""
        name, known = f"{modality}_weights", self.known_source(modality)
        recorded, value = getattr(self, name), given.get(name)
        field = self.weights_field(modality)
        if value is None and recorded not in (None, known):
            copy = f" If they are a copy of {known!r}, pass {known!r}." if known else ""
            raise UserError(
                f"The file's features were computed with {recorded!a}. Weights named "
                "in a file are not loaded without asking. Pass them as "
                f"{field} if you trust them.{copy}",
                field=field,
            )
        expected = getattr(self, f"{modality}_sha256")
        if value in (None, known) or expected is None:
            return
        try:
            is_same = checksum(value) == expected
        except (OSError, ValueError):
            is_same = False
        if not is_same:
            raise UserError(
                "Expected the weights that computed the features, of SHA-256 "
                f"{expected[:16]}... Received another checksum, or no local file "
                "or folder.",
                field=field,
                value=value,
            )

    def names(self) -> dict[str, str | None]:
        """Return the arguments of `build_extractor`: all fields but the checksums."""
        fields = dataclasses.asdict(self).items()
        return {name: v for name, v in fields if not name.endswith("_sha256")}

    def describe(self) -> str:
        """Return a readable line with the networks and weights of both modalities."""
        texts = []
        for modality, label in zip(_MODALITIES, ("sound", "picture"), strict=True):
            network, weights = (
                getattr(self, f"{modality}_{name}") for name in ("network", "weights")
            )
            # All modules share the name `HUB`: show only the URL or folder.
            names = [None if network == HUB else network, weights]
            if modality == "visual":
                names.append(self.visual_precision)
            if text := ", ".join(filter(None, names)):
                texts.append(f"{label}: {text}")
        return "; ".join(texts)

    def to_dict(self) -> dict[str, str | None]:
        """Return the fields as a JSON-ready dictionary, without unknown checksums."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if value is not None or not name.endswith("_sha256")
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any] | None) -> "Backbones":
        """Return the `Backbones` of a dictionary; missing fields are not recorded.

        Raises:
            ValueError: If a name is unknown, or a value is neither a string nor None.
        """
        fields = dict(fields or {})
        # Version 0.1.0 recorded only the URL of VGGish.
        if (vggish := fields.pop("vggish", None)) is not None:
            fields |= {"audio_network": "vggish", "audio_weights": vggish}
        known = {field.name for field in dataclasses.fields(cls)}
        wrong = sorted(
            name
            for name, value in fields.items()
            if name not in known or not (value is None or isinstance(value, str))
        )
        if wrong:
            raise ValueError(
                f"Expected strings named {', '.join(sorted(known))}. "
                f"Received: {', '.join(wrong)}"
            )
        # If a network's name is a URL or folder, move it to the weights, which
        # `check_trusted` checks.
        networks = {
            f"{each}_network": fields.get(f"{each}_network") for each in _MODALITIES
        }
        return cls(**{**fields, **as_fields(**networks)})


def as_fields(**given: str | None) -> dict[str, str | None]:
    """Return the fields of `Backbones` that arguments of `override` set."""
    fields = {n: expand_user(value) for n, value in given.items() if value is not None}
    if (vggish := fields.pop("vggish", None)) is not None:
        fields |= {"audio_network": "vggish", "audio_weights": vggish}
    for modality in _MODALITIES:
        network = fields.get(f"{modality}_network")
        # A slash distinguishes a URL or folder from a network's name.
        if network is not None and {"/", os.sep} & set(network):
            fields |= {f"{modality}_network": HUB, f"{modality}_weights": network}
    return fields


def checksum(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, or of the names and hashes of a folder's files.

    Raises:
        OSError: If a file can't be read.
        ValueError: If a file is a pipe or a device, or over `MAX_FILE_BYTES` long.
    """
    path = pathlib.Path(expand_user(path))
    if not path.is_dir():
        return hash_file(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if not file.is_dir()):
        name = file.relative_to(path).as_posix()
        digest.update(f"{hash_file(file)}  {name}\n".encode())
    return digest.hexdigest()
