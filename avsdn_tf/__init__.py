"""Audio-visual event localization with Keras.

Importing the package registers its layers, losses, metrics and models with Keras, so
that `keras.models.load_model` knows them, and does nothing else.
"""

from avsdn_tf.startup import is_command_line
from avsdn_tf.version import __version__

# The command line checks its words before it imports TensorFlow, which takes seconds.
if not is_command_line():
    from avsdn_tf import metrics
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
    from avsdn_tf.metrics import BackgroundRecall, EventF1, SegmentAccuracy
    from avsdn_tf.models import AVDLN, AVEL, AVSDN, DMRN

__all__ = [
    "AVDLN",
    "AVEL",
    "AVSDN",
    "DMRN",
    "Backbones",
    "BackgroundRecall",
    "ClipLoss",
    "ContrastiveLoss",
    "Event",
    "EventF1",
    "SegmentAccuracy",
    "SoftMarginLoss",
    "SoftmaxBinaryCrossentropy",
    "UserError",
    "__version__",
    "events_from_logits",
    "load",
    "localize",
    "metrics",
]
