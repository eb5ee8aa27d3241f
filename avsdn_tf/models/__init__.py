"""The networks and their layers."""

from avsdn_tf.models.audio_visual import AudioVisualModel
from avsdn_tf.models.avdln import AVDLN
from avsdn_tf.models.avel import AVEL
from avsdn_tf.models.avsdn import AVSDN
from avsdn_tf.models.base import SegmentClassifier
from avsdn_tf.models.cace import CACENet
from avsdn_tf.models.cmbs import CMBS
from avsdn_tf.models.cmran import CMRAN
from avsdn_tf.models.cpsp import CPSP
from avsdn_tf.models.dmrn import DMRN
from avsdn_tf.models.late_fusion import LateFusion
from avsdn_tf.models.psp import PSP

__all__ = [
    "AVDLN",
    "AVEL",
    "AVSDN",
    "CMBS",
    "CMRAN",
    "CPSP",
    "DMRN",
    "PSP",
    "AudioVisualModel",
    "CACENet",
    "LateFusion",
    "SegmentClassifier",
]
