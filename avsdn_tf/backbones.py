"""What made the features: the frozen networks in front of ours."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from avsdn_tf.errors import UserError
from avsdn_tf.files import expand_user, hash_file

VGGISH = "https://tfhub.dev/google/vggish/1"
YAMNET = "https://tfhub.dev/google/yamnet/1"
IMAGENET = "imagenet"
# The network of any module of TensorFlow Hub, and of any SavedModel.
HUB = "hub"
_AUDIO_SOURCES = {"vggish": VGGISH, "yamnet": YAMNET, "yamnet_scores": YAMNET}
_MODALITIES = ("audio", "visual")


@dataclasses.dataclass(frozen=True)
class Backbones:
    """The networks that made audio and visual features, and their weights.

    Feature files, data sets, runs and saved models carry this description, and it
    decides whether two of them fit. None means that nobody recorded it.

    Attributes:
        audio_network: A name of `features.audio.AUDIO_NETWORKS`, or `"hub"`.
        audio_weights: Where its weights come from: an address, a file or a folder.
        visual_network: A name that `features.visual.recipe_of` knows, or `"hub"`.
        visual_weights: `"imagenet"`, a weights file, or of a hub network its address or
            folder.
        visual_precision: What the visual network computes in, as Keras names it.
        audio_sha256: `checksum` of local audio weights.
        visual_sha256: `checksum` of local visual weights.
    """

    audio_network: str | None = None
    audio_weights: str | None = None
    visual_network: str | None = None
    visual_weights: str | None = None
    visual_precision: str | None = None
    # Equal without them: records of before there were checksums have none.
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
        """Return where a modality's network comes from unless a person says otherwise.

        These publishers are known, so that a file may name them.
        """
        if modality == "visual":
            return None if self.visual_network == HUB else IMAGENET
        return _AUDIO_SOURCES.get(self.audio_network or "vggish")

    def weights_field(self, modality: str) -> str:
        """Return the name of the argument that a modality's weights are given by."""
        is_vggish = modality == "audio" and self.audio_network in (None, "vggish")
        return "vggish" if is_vggish else f"{modality}_weights"

    def resolve(self) -> "Backbones":
        """Return a copy with absolute paths, and with checksums of local files.

        Equal files compare equal then.
        """
        found: dict[str, str | None] = {}
        for modality in _MODALITIES:
            value = getattr(self, f"{modality}_weights")
            is_known = value in (None, self.known_source(modality))
            if not is_known and os.path.exists(value):
                found[f"{modality}_weights"] = str(pathlib.Path(value).resolve())
                # Loading it names what can't be read.
                with contextlib.suppress(OSError, ValueError):
                    found[f"{modality}_sha256"] = checksum(value)
        return dataclasses.replace(self, **found)

    def override(self, **given: str | None) -> "Backbones":
        """Return a copy whose fields are replaced by those that are given and not None.

        A network without weights of its own takes those of its known source.

        Args:
            **given: Fields. `audio_network` and `visual_network` may also be the
                address or folder of a module, and `vggish` is short for the weights of
                the audio network VGGish.
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

        They are VGGish and pooled ResNet-152 with their public weights, in float32.
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
        """Check that these, as a file records them, may be loaded.

        A file may be anybody's, and loading a module runs its code. Whatever isn't
        from a known source must be given by the caller, and be the recorded one.

        Args:
            given: The caller's own arguments, as for `override`; they replace these.

        Raises:
            UserError: If weights that aren't given come from another source than the
                known one, or the checksum of given ones differs from the recorded one.
        """
        fields = as_fields(**given)
        for modality in _MODALITIES:
            name, known = f"{modality}_weights", self.known_source(modality)
            recorded, value = getattr(self, name), fields.get(name)
            field = self.weights_field(modality)
            if value is None and recorded not in (None, known):
                raise UserError(
                    f"The features were made with {recorded!a}, as their file "
                    "says. What a file names is not loaded without asking. Pass it as "
                    f"{field} if you trust it"
                    + (f", or {known!r} if it is a copy of that." if known else "."),
                    field=field,
                )
            expected = getattr(self, f"{modality}_sha256")
            if value in (None, known) or expected is None:
                continue
            try:
                is_same = checksum(value) == expected
            except (OSError, ValueError):
                is_same = False
            if not is_same:
                raise UserError(
                    "Expected the weights that made the features, of SHA-256 "
                    f"{expected[:16]}... Received another checksum, or no local file "
                    "or folder.",
                    field=field,
                    value=value,
                )

    def names(self) -> dict[str, str | None]:
        """Return the fields that are arguments of `build_extractor`: no checksums."""
        fields = dataclasses.asdict(self).items()
        return {name: v for name, v in fields if not name.endswith("_sha256")}

    def to_dict(self) -> dict[str, str | None]:
        """Return the fields, ready for JSON, without checksums that are unknown."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if value is not None or not name.endswith("_sha256")
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any] | None) -> "Backbones":
        """Return what `to_dict` gave; missing fields and None are unknown.

        Raises:
            ValueError: If a field is unknown, or no text.
        """
        fields = dict(fields or {})
        # Version 0.1.0 wrote the address of VGGish alone.
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
                f"Expected texts named {', '.join(sorted(known))}. "
                f"Received: {', '.join(wrong)}"
            )
        # An address or folder in the place of a network's name is a source like any
        # other, which `check_trusted` must see.
        networks = {
            f"{each}_network": fields.get(f"{each}_network") for each in _MODALITIES
        }
        return cls(**{**fields, **as_fields(**networks)})


def as_fields(**given: str | None) -> dict[str, str | None]:
    """Return the fields of `Backbones` that the arguments of `override` stand for."""
    fields = {n: expand_user(value) for n, value in given.items() if value is not None}
    if (vggish := fields.pop("vggish", None)) is not None:
        fields |= {"audio_network": "vggish", "audio_weights": vggish}
    for modality in _MODALITIES:
        network = fields.get(f"{modality}_network")
        # A folder without a slash could not be told from a name.
        if network is not None and {"/", os.sep} & set(network):
            fields |= {f"{modality}_network": HUB, f"{modality}_weights": network}
    return fields


def checksum(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file; of a folder, that of its files' names and hashes.

    Raises:
        OSError: If it can't be read.
        ValueError: If there is a pipe or a device.
    """
    path = pathlib.Path(expand_user(path))
    if not path.is_dir():
        return hash_file(path)
    found = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if not file.is_dir()):
        name = file.relative_to(path).as_posix()
        found.update(f"{hash_file(file)}  {name}\n".encode())
    return found.hexdigest()
