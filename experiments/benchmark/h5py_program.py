"""The baseline of reading: an HDF5 file, batch by batch."""

from collections.abc import Callable

import h5py
import numpy as np


def reading(files: str, batch_size: int) -> Callable[[], None]:
    """Returns a function that reads an epoch's batches, shuffled, from the file.

    Args:
        files: A file of `feature_file.write_feature_file`.
        batch_size: Clips in a batch.
    """
    file = h5py.File(files)
    rng = np.random.default_rng(0)

    def work() -> None:
        rows = rng.permutation(file["rows_train"][...])
        for start in range(0, len(rows), batch_size):
            # h5py takes rows in rising order.
            batch = np.sort(rows[start : start + batch_size])
            for name in ("audio", "visual", "labels"):
                file[name][batch]

    return work
