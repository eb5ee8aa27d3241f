"""One HDF5 file with a data set's features, for programs that read AVE's files."""

import pathlib

import h5py
import numpy as np

from avsdn_tf.data.batches import scoring_batches
from avsdn_tf.data.dataset import Dataset
from experiments.benchmark.h5py_program import SPLITS


def write_feature_file(dataset: Dataset, path: pathlib.Path) -> None:
    """Write the train and validation splits of a data set.

    Args:
        dataset: The data.
        path: The file. It holds `audio` and `visual`, float32 like AVE's released
            files, not chunked; the segments' classes, `labels`; and the rows of the
            splits, `rows_train` and `rows_validation`.
    """
    num_clips = sum(map(dataset.num_clips, SPLITS))
    shape = (num_clips, dataset.num_segments)
    visual_shape = (*shape, *dataset.visual_shape)
    with h5py.File(path, "w") as file:
        arrays = {
            "audio": file.create_dataset("audio", (*shape, dataset.audio_width), "f4"),
            "visual": file.create_dataset("visual", visual_shape, "f4"),
            "segment_labels": file.create_dataset("labels", shape, "i8"),
        }
        end = 0
        for split in SPLITS:
            begin = end
            for batch in scoring_batches(dataset, split):
                start, end = end, end + len(batch["row"])
                for name, array in arrays.items():
                    array[start:end] = batch[name].numpy()
            file[f"rows_{split}"] = np.arange(begin, end)
