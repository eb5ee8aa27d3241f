"""What the benchmark was asked for."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

from avsdn_tf.backbones import Backbones
from avsdn_tf.data.dataset import Dataset
from avsdn_tf.files import explain_unwritable
from experiments.benchmark.batch import Batch
from experiments.benchmark.feature_file import write_feature_file


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the benchmark was asked for.

    Attributes:
        dataset: The data set that parts read.
        data_dir: TFDS's folder, or None for its default.
        repeats: Number of turns of every program.
        seconds: Length of a turn.
        videos: Video files or folders of them, for the part `video`.
        backbones: What makes the features of the videos.
        workers: Videos at once.
    """

    dataset: Dataset | None
    data_dir: str | None
    repeats: int
    seconds: float = 1.0
    videos: Sequence[str] = ()
    backbones: Backbones | None = None
    workers: int = 2

    @property
    def batch(self) -> Batch:
        """The batches of the network that fits the data set."""
        shape = self.dataset.visual_shape
        network = "avel_att" if len(shape) == 3 else "avsdn"
        return Batch(network, shape, num_segments=self.dataset.num_segments)

    @property
    def title(self) -> str:
        """The network and the data set."""
        return f"{self.batch.network} on {self.dataset.name}"

    @contextlib.contextmanager
    def feature_file(self) -> Iterator[str]:
        """Yield a temporary file with the features, for the other programs.

        Raises:
            UserError: If there is no space.
        """
        with temporary_folder() as folder:
            path = folder / "features.h5"
            with explain_unwritable(path, "Choose a larger folder by TMPDIR=."):
                write_feature_file(self.dataset, path)
            yield str(path)


@contextlib.contextmanager
def temporary_folder() -> Iterator[pathlib.Path]:
    """Yield a temporary folder as a path."""
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)
