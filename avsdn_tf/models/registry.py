"""The registry of networks, by their names in `Config.model`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from avsdn_tf.models.avdln import AVDLN
from avsdn_tf.models.avel import AVEL
from avsdn_tf.models.avsdn import AVSDN
from avsdn_tf.models.base import SegmentClassifier
from avsdn_tf.models.cace import CACENet
from avsdn_tf.models.cmbs import CMBS
from avsdn_tf.models.cmran import CMRAN
from avsdn_tf.models.cpsp import CPSP
from avsdn_tf.models.dmrn import DMRN
from avsdn_tf.models.psp import PSP


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """A network, and how settings map to its constructor's arguments.

    Attributes:
        network: Class of the network.
        summary: One line for the help of the command line.
        options: Names of the settings that are passed to the constructor.
        fixed: Constructor arguments of this variant.
        weak: Additional constructor arguments in weak mode; None if there is no weakly
            supervised variant.
        needs_maps: Whether the network needs feature maps, not pooled features.
    """

    network: type[SegmentClassifier] | type[AVDLN]
    summary: str
    options: tuple[str, ...]
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weak: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)
    needs_maps: bool = False


_AVSDN_OPTIONS = (
    "units",
    "bidirectional",
    "shared_mlp",
    "merge",
    "shared_fusion",
    "append_state",
    "dropout",
)
_ONE_STATE_OPTIONS = ("units", "bidirectional", "append_state", "dropout")
_AVEL_OPTIONS = ("units", "dropout")

MODELS = {
    "avsdn": ModelEntry(
        AVSDN,
        "two encoders, fused states, decoder",
        _AVSDN_OPTIONS,
    ),
    "avsdn_init_visual": ModelEntry(
        AVSDN,
        "AVSDN whose decoder starts from visual states alone",
        _ONE_STATE_OPTIONS,
        {"initial_state": "visual"},
    ),
    "avsdn_init_audio": ModelEntry(
        AVSDN,
        "AVSDN whose decoder starts from audio states alone",
        _ONE_STATE_OPTIONS,
        {"initial_state": "audio"},
    ),
    "avsdn_label_guided": ModelEntry(
        AVSDN,
        "AVSDN whose encoder states also predict the clip's label",
        _AVSDN_OPTIONS,
        {"label_guided": True},
    ),
    "avel_audio": ModelEntry(
        AVEL,
        "AVEL on audio alone",
        _AVEL_OPTIONS,
        {"modalities": "audio"},
    ),
    "avel_visual": ModelEntry(
        AVEL,
        "AVEL on visual features alone",
        _AVEL_OPTIONS,
        {"modalities": "visual"},
    ),
    "avel": ModelEntry(
        AVEL, "AVEL on both modalities, without attention", _AVEL_OPTIONS
    ),
    "avel_att": ModelEntry(
        AVEL,
        "AVEL with audio-guided attention on feature maps",
        _AVEL_OPTIONS,
        {"attention": True},
        needs_maps=True,
    ),
    "dmrn": ModelEntry(
        DMRN,
        "AVEL with attention, fused by a residual network",
        _AVEL_OPTIONS,
        needs_maps=True,
    ),
    "cmran": ModelEntry(
        CMRAN,
        "attention across modalities, and two heads",
        (),
        weak={"weak": True},
        needs_maps=True,
    ),
    "psp": ModelEntry(
        PSP,
        "positive-sample propagation between the modalities",
        ("units",),
        weak={"weak": True},
        needs_maps=True,
    ),
    "cpsp": ModelEntry(
        CPSP,
        "PSP with two heads, contrasting clips",
        ("units",),
        weak={"weak": True},
        needs_maps=True,
    ),
    "cmbs": ModelEntry(
        CMBS,
        "CMRAN with gates that suppress background",
        (),
        weak={"weak": True},
        needs_maps=True,
    ),
    "cace": ModelEntry(
        CACENet,
        "CMBS with attention to audio, contrasting segments",
        (),
        weak=None,
        needs_maps=True,
    ),
    "avdln": ModelEntry(AVDLN, "AVDLN, for cross-modality localization", ()),
}

MODEL_OPTIONS = {name for entry in MODELS.values() for name in entry.options}
