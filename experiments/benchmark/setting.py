"""What the benchmark was asked for, and what its parts share."""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avsdn_tf.backbones import Backbones
from avsdn_tf.data.dataset import Dataset
from avsdn_tf.files import explain_unwritable
from avsdn_tf.training.config import Config
from experiments.benchmark.comparison import Comparison, Measurement
from experiments.benchmark.feature_file import write_feature_file

DEFAULT = Config()
VISUAL_SHAPES = {"avsdn": (2048,), "avel_att": (7, 7, 512)}
CLIPS = "clips a second"
# Names of the programs.
EAGER, COMPILED = "PyTorch", "PyTorch, torch.compile"
FUSED = "PyTorch, fused Adam"
PLAIN = "plain Keras, fit"
OURS, OURS_XLA = "avsdn_tf", "avsdn_tf, --xla=step"
# Both keep their weights in float32.
EAGER_HALF = "PyTorch, autocast to bfloat16"
OURS_HALF = "avsdn_tf, --precision=mixed_bfloat16"


@dataclass(frozen=True)
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
    backbones: Backbones = Backbones()
    workers: int = 2

    @property
    def network(self) -> str:
        """The network that fits the data set."""
        return "avel_att" if len(self.dataset.visual_shape) == 3 else "avsdn"

    @property
    def title(self) -> str:
        """The network and the data set."""
        return f"{self.network} on {self.dataset.name}"

    def training_settings(self, files: pathlib.Path) -> dict[str, Any]:
        """Return the settings of the programs that train on a feature file."""
        return {
            "network": self.network,
            "visual_shape": list(self.dataset.visual_shape),
            "units": DEFAULT.units,
            "batch_size": DEFAULT.batch_size,
            "files": str(files),
        }

    @contextlib.contextmanager
    def feature_file(self) -> Iterator[pathlib.Path]:
        """Yield a temporary file with the features, for the other programs.

        Raises:
            UserError: If there is no space.
        """
        with temporary_folder() as folder:
            path = folder / "features.h5"
            with explain_unwritable(path, "Choose a larger folder by TMPDIR=."):
                write_feature_file(self.dataset, path)
            yield path


@contextlib.contextmanager
def temporary_folder() -> Iterator[pathlib.Path]:
    """Yield a temporary folder as a path."""
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)


def times(title: str, unit: str, values: Mapping[str, Sequence[float]]) -> Comparison:
    """Return a comparison of which less is better.

    Args:
        title: The work.
        unit: Unit of the values.
        values: By program, a value a turn.
    """
    rows = [Measurement(name, of) for name, of in values.items()]
    return Comparison(title, unit, rows, less_is_better=True)


def memory(title: str, peaks: Mapping[str, Sequence[float]]) -> Comparison:
    """Return a comparison of peak memory.

    Args:
        title: The work.
        peaks: By program, the bytes of every turn.
    """
    gigabytes = {name: [b / 1e9 for b in of] for name, of in peaks.items()}
    return times(f"{title}, peak memory of the process", "GB", gigabytes)
