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
IMAGENET = "imagenet"
# The sources that are loaded because a file names them: their publishers are known, and
# TensorFlow Hub and Keras fetch them from there.
_KNOWN = {"vggish": VGGISH, "visual_weights": IMAGENET}
_CHECKSUMS = {"vggish": "vggish_sha256", "visual_weights": "visual_weights_sha256"}


@dataclasses.dataclass(frozen=True)
class Backbones:
    """The networks that made audio and visual features, and their weights.

    Feature files, data sets, runs and saved models carry this description. None means
    that nobody recorded it.

    Attributes:
        visual_network: A name of `features.visual.RECIPES`.
        vggish: Address or folder of the VGGish module.
        visual_weights: `"imagenet"`, or the weights file.
        visual_precision: What the visual network computes in, as Keras names it.
        vggish_sha256: `checksum` of a folder of the VGGish module.
        visual_weights_sha256: `checksum` of a weights file.
    """

    visual_network: str | None = None
    vggish: str | None = None
    visual_weights: str | None = None
    visual_precision: str | None = None
    # Equal without them: records of before there were checksums have none.
    vggish_sha256: str | None = dataclasses.field(default=None, compare=False)
    visual_weights_sha256: str | None = dataclasses.field(default=None, compare=False)

    @property
    def is_complete(self) -> bool:
        """Whether networks and weights of both modalities are recorded."""
        return None not in (self.visual_network, self.vggish, self.visual_weights)

    def resolve(self) -> "Backbones":
        """Return the same with absolute paths and checksums of what lies there.

        Equal files compare equal then.
        """
        found: dict[str, str | None] = {}
        for name, checksum_name in _CHECKSUMS.items():
            value = getattr(self, name)
            if value not in (None, _KNOWN[name]) and os.path.exists(value):
                found[name] = str(pathlib.Path(value).resolve())
                # Loading it names what can't be read.
                with contextlib.suppress(OSError, ValueError):
                    found[checksum_name] = checksum(found[name])
        return dataclasses.replace(self, **found)

    def override(self, **given: str | None) -> "Backbones":
        """Return the same with those fields replaced that are given and not None."""
        given = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(self, **given)

    def check_trusted(self, given: Mapping[str, str | None]) -> None:
        """Check that these, as a file records them, may be loaded.

        A file may be anybody's, and loading a module runs its code. Whatever isn't
        from a known source must be given by the caller, and be the recorded one.

        Args:
            given: The caller's own arguments by field; they replace these.

        Raises:
            UserError: If a field that isn't given names another source than the known
                one, or a given file's checksum differs from the recorded one.
        """
        for name, known in _KNOWN.items():
            recorded, value = getattr(self, name), given.get(name)
            if value is None and recorded not in (None, known):
                raise UserError(
                    f"The features were made with {recorded!a}, as their file "
                    "says. What a file names is not loaded without asking. Pass it as "
                    f"{name} if you trust it, or {known!r} if it is a copy of that.",
                    field=name,
                )
            expected = getattr(self, _CHECKSUMS[name])
            if value in (None, known) or expected is None:
                continue
            try:
                is_same = checksum(value) == expected
            except (OSError, ValueError):
                is_same = False
            if not is_same:
                raise UserError(
                    f"Expected what made the features, with SHA-256 {expected[:16]}... "
                    "Received another checksum, or no local file or folder.",
                    field=name,
                    value=value,
                )

    def names(self) -> dict[str, str | None]:
        """Return the fields that are arguments of `build_extractor`: no checksums."""
        fields = dataclasses.asdict(self).items()
        return {name: v for name, v in fields if name not in _CHECKSUMS.values()}

    def to_dict(self) -> dict[str, str | None]:
        """Return the fields, ready for JSON, without checksums that are unknown."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if value is not None or name not in _CHECKSUMS.values()
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any] | None) -> "Backbones":
        """Return what `to_dict` gave; missing fields and None are unknown.

        Raises:
            ValueError: If a field is unknown, or no text.
        """
        fields = dict(fields or {})
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
        return cls(**fields)


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
