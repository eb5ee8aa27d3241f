"""Audio-visual event localization with Keras.

Importing the package registers its layers, losses, metrics and models with Keras for
`keras.models.load_model`, and has no other side effect.
"""

from typing import TYPE_CHECKING, Any

from avsdn_tf.startup import is_command_line
from avsdn_tf.version import __version__

if TYPE_CHECKING:
    from avsdn_tf.runs import Config, TrainedRun, evaluate, predict, train

# The command line skips these slow imports, to check its arguments first.
if not is_command_line():
    from avsdn_tf import metrics, zero_shot
    from avsdn_tf.backbones import Backbones
    from avsdn_tf.errors import UserError
    from avsdn_tf.events import Event, events_from_logits
    from avsdn_tf.inference import load, localize
    from avsdn_tf.losses import (
        ClipLoss,
        ContrastiveLoss,
        SoftMarginLoss,
        SoftmaxBinaryCrossentropy,
    )
    from avsdn_tf.metrics import BackgroundRecall, EventF1, SegmentAccuracy, SegmentF1
    from avsdn_tf.models import (
        AVDLN,
        AVEL,
        AVSDN,
        CMBS,
        CMRAN,
        CPSP,
        DMRN,
        PSP,
        CACENet,
        LateFusion,
    )

# These names need TensorFlow. Import them on first use, so that networks also run on
# other Keras backends.
_LAZY = ("Config", "TrainedRun", "evaluate", "predict", "train")

__all__ = [
    "AVDLN",
    "AVEL",
    "AVSDN",
    "CMBS",
    "CMRAN",
    "CPSP",
    "DMRN",
    "PSP",
    "Backbones",
    "BackgroundRecall",
    "CACENet",
    "ClipLoss",
    "Config",
    "ContrastiveLoss",
    "Event",
    "EventF1",
    "LateFusion",
    "SegmentAccuracy",
    "SegmentF1",
    "SoftMarginLoss",
    "SoftmaxBinaryCrossentropy",
    "TrainedRun",
    "UserError",
    "__version__",
    "evaluate",
    "events_from_logits",
    "load",
    "localize",
    "metrics",
    "predict",
    "train",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from avsdn_tf import runs

    return getattr(runs, name)
