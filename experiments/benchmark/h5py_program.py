"""Reading of the feature file, whole and batch by batch, by h5py and NumPy alone."""

from collections.abc import Callable

import h5py
import numpy as np

NAMES = ("audio", "visual", "labels")
SPLITS = ("train", "validation")


def load(files: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Load a file of `feature_file.write_feature_file` into memory.

    Returns:
        `audio`, `visual` and `labels` of all clips; and the clips of each split.
    """
    with h5py.File(files) as file:
        clips = {name: file[name][...] for name in NAMES}
        return clips, {split: file[f"rows_{split}"][...] for split in SPLITS}


def reading(files: str, batch_size: int) -> Callable[[], None]:
    """Return a function that reads an epoch's batches, shuffled, from the file."""
    file = h5py.File(files)
    rng = np.random.default_rng(0)

    def work() -> None:
        rows = rng.permutation(file["rows_train"][...])
        for start in range(0, len(rows), batch_size):
            # h5py takes rows in rising order.
            batch = np.sort(rows[start : start + batch_size])
            for name in NAMES:
                file[name][batch]

    return work
