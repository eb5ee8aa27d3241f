"""Audio-visual event localization with Keras.

Importing the package registers its layers, losses and models, so that
`keras.models.load_model` knows them.
"""

from avsdn_tf.startup import quiet_startup
from avsdn_tf.version import __version__

with quiet_startup():
    from avsdn_tf.api import load, localize
    from avsdn_tf.errors import UserError
    from avsdn_tf.localization import Event, events_from_logits
    from avsdn_tf.losses import (
        ClipLoss,
        ContrastiveLoss,
        SoftMarginLoss,
        SoftmaxBinaryCrossentropy,
    )
    from avsdn_tf.models.avel import AVEL, DMRN
    from avsdn_tf.models.avsdn import AVSDN
    from avsdn_tf.models.cross_modal import AVDLN

__all__ = [
    "AVDLN",
    "AVEL",
    "AVSDN",
    "DMRN",
    "ClipLoss",
    "ContrastiveLoss",
    "Event",
    "SoftMarginLoss",
    "SoftmaxBinaryCrossentropy",
    "UserError",
    "__version__",
    "events_from_logits",
    "load",
    "localize",
]
