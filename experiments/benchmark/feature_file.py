"""One HDF5 file with the features of a data set, as programs on AVE's files read it."""

import pathlib

import h5py
import numpy as np

from avsdn_tf import data

SPLITS = ("train", "validation")


def write_feature_file(dataset: data.Dataset, path: pathlib.Path) -> None:
    """Writes the train and validation splits of a data set.

    Args:
        dataset: The data.
        path: The file. It will hold `audio` and `visual`, float32 as AVE's released
            files, in one piece each; the segments' classes, `labels`; and the rows of
            the splits, `rows_train` and `rows_validation`.
    """
    num_clips = sum(map(dataset.num_clips, SPLITS))
    shape = (num_clips, dataset.num_segments)
    first = 0
    with h5py.File(path, "w") as file:
        made = {
            "audio": file.create_dataset("audio", (*shape, dataset.audio_width), "f4"),
            "visual": file.create_dataset(
                "visual", (*shape, *dataset.visual_shape), "f4"
            ),
            "segment_labels": file.create_dataset("labels", shape, "i8"),
        }
        for split in SPLITS:
            begin = first
            for batch in data.scoring_batches(dataset, split):
                end = first + len(batch["row"])
                for name, array in made.items():
                    array[first:end] = batch[name].numpy()
                first = end
            file[f"rows_{split}"] = np.arange(begin, first)
