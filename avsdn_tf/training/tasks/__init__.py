"""Training tasks: batches, loss and score.

`SegmentTask` predicts the classes of every segment, supervised or weakly supervised;
`CrossModalityTask` predicts the distance between segments of the two modalities.
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
    """Build the task for `config.mode`, with a new network.

    Raises:
        UserError: If the settings contradict each other or the data.
    """
    training_label(config, dataset)  # Raises if events lack times.
    make = CrossModalityTask if config.mode == CROSS_MODAL else SegmentTask
    return make(build_model(config, dataset), config, dataset)


def restore_task(model: keras.Model, config: Config, dataset: Dataset) -> Task:
    """Build the task for `config.mode`, with a trained network.

    Raises:
        UserError: If categories or shapes of the data set and the network differ.
    """
    names = ["audio_width", "visual_shape"]
    # AVDLN's outputs don't depend on categories.
    if config.mode != CROSS_MODAL:
        names.append("categories")
    for name in names:
        expected, received = (
            np.array(getattr(owner, name)).tolist() for owner in (model, dataset)
        )
        if expected != received:
            raise UserError(
                f"The run's network has {name} {expected}, and the data set has "
                f"{received}: it was built from other files. Build it from the files "
                "of the run, or choose another data_dir.",
                field="dataset",
                value=config.dataset,
            )
    make = CrossModalityTask if config.mode == CROSS_MODAL else SegmentTask
    return make(model, config, dataset)
