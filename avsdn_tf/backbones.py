"""What made the features: the frozen networks in front of ours."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

VGGISH = "https://tfhub.dev/google/vggish/1"
IMAGENET = "imagenet"


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
    """

    visual_network: str | None = None
    vggish: str | None = None
    visual_weights: str | None = None
    visual_precision: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether networks and weights of both modalities are recorded."""
        return None not in (self.visual_network, self.vggish, self.visual_weights)

    def resolve(self) -> "Backbones":
        """Return the same with absolute paths, so that equal files compare equal."""

        def absolute(name: str | None) -> str | None:
            if name in (None, IMAGENET) or not os.path.exists(name):
                return name
            return str(pathlib.Path(name).resolve())

        return dataclasses.replace(
            self,
            vggish=absolute(self.vggish),
            visual_weights=absolute(self.visual_weights),
        )

    def override(self, **given: str | None) -> "Backbones":
        """Return the same with those fields replaced that are given and not None."""
        given = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(self, **given)

    def to_dict(self) -> dict[str, str | None]:
        """Return the fields, ready for JSON."""
        return dataclasses.asdict(self)

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
