"""The networks, by the name that `--model` takes."""

import dataclasses

from avsdn_tf.models.avsdn import AVSDN
from avsdn_tf.models.base import SegmentClassifier


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """A network that can be chosen by name.

    Attributes:
        network: Its class.
        summary: One line for `--help`.
        options: Names of the settings that its constructor takes.
    """

    network: type[SegmentClassifier]
    summary: str
    options: tuple[str, ...]


MODELS = {
    "avsdn": ModelEntry(
        AVSDN,
        "AVSDN: encoders, fused states, decoder (Lin et al. 2019)",
        (
            "units",
            "bidirectional",
            "shared_mlp",
            "merge",
            "shared_fusion",
            "append_state",
            "dropout",
        ),
    ),
}
