"""What is learnt: batches, loss and score of each task.

`SegmentTask` learns the class of every segment, supervised or weak;
`CrossModalityTask` learns which segments' sound and picture belong together.
"""

import keras
import numpy as np

from avsdn_tf.data.dataset import Dataset
from avsdn_tf.errors import UserError
from avsdn_tf.training.build import build_model
from avsdn_tf.training.config import CROSS_MODAL, Config
from avsdn_tf.training.tasks.base import Task
from avsdn_tf.training.tasks.cross_modality import CrossModalityTask
from avsdn_tf.training.tasks.segments import SegmentTask, training_label

__all__ = ["CrossModalityTask", "SegmentTask", "Task", "build_task", "restore_task"]


def build_task(config: Config, dataset: Dataset) -> Task:
    """Build the task that the mode names, with a new network.

    Raises:
        UserError: If the settings don't fit each other, or the data.
    """
    training_label(config, dataset)  # Raises if clips lack the times of their events.
    make = CrossModalityTask if config.mode == CROSS_MODAL else SegmentTask
    return make(build_model(config, dataset), config, dataset)


def restore_task(model: keras.Model, config: Config, dataset: Dataset) -> Task:
    """Build the task around a trained network.

    Raises:
        UserError: If the data set is not of the network's categories and shapes.
    """
    names = ["audio_width", "visual_shape"]
    # AVDLN doesn't know categories.
    if config.mode != CROSS_MODAL:
        names.append("categories")
    for name in names:
        learnt, found = (
            np.array(getattr(one, name)).tolist() for one in (model, dataset)
        )
        if learnt != found:
            raise UserError(
                f"The run has learnt {name} {learnt}, and the data set has {found}: it "
                "was built from other files. Build it from those of the run, or choose "
                "another data_dir.",
                field="dataset",
                value=config.dataset,
            )
    make = CrossModalityTask if config.mode == CROSS_MODAL else SegmentTask
    return make(model, config, dataset)
