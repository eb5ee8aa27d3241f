import os
import pathlib

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    # By default, each operation uses all cores: parallel tests would compete for them.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Return a TFDS folder with the synthetic data set, built once."""
    from avsdn_tf.data.dataset import open_dataset

    folder = str(tmp_path_factory.mktemp("tensorflow_datasets"))
    open_dataset("tfds_ave/synthetic", folder)
    return folder


@pytest.fixture
def official():
    """Return the folder of AVE's released small files."""
    folder = SHARED / "ave_official"
    if not folder.is_dir():
        pytest.skip("AVE's released files are not available")
    return folder


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def extractor():
    """Return an extractor of features of width 3."""
    from avsdn_tf.features.extractor import Extractor
    from tests.small_videos import Brightness, Loudness

    return Extractor(Loudness(), Brightness())


@pytest.fixture
def run_folder(tmp_path):
    """Return the folder of a run whose network accepts features of `extractor`."""
    import avsdn_tf
    from avsdn_tf.run_folder import RunFolder
    from avsdn_tf.training.config import Config

    folder = RunFolder(tmp_path / "run")
    folder.write_config(Config(dataset="tfds_ave/custom").to_dict(), "hash")
    avsdn_tf.AVSDN(["Bark", "Flute"], 3, (3,), units=4, num_segments=4).save(
        folder.model
    )
    folder.report.write_text('{"disclaimer": "of no worth"}')
    folder.write_checksums()
    return folder.path


@pytest.fixture
def refuse(capsys):
    """Return a function that runs a failing command and returns its message."""
    # Import the command line only for the tests that use it.
    from avsdn_tf.cli import app
    from tests.commands import call

    def refuse(*words):
        with pytest.raises(SystemExit) as stop:
            app._exit_on_error(lambda _: call(*words), None)
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert message.startswith("avsdn_tf: ")
        assert "Traceback" not in message
        return message

    return refuse
