"""The networks and the layers that they are built from."""

from avsdn_tf.models.avdln import AVDLN
from avsdn_tf.models.avel import AVEL, DMRN
from avsdn_tf.models.avsdn import AVSDN
from avsdn_tf.models.base import SegmentClassifier

__all__ = ["AVDLN", "AVEL", "AVSDN", "DMRN", "SegmentClassifier"]
