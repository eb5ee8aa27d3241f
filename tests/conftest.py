import os
import pathlib

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A TFDS folder with the synthetic data set, built once."""
    from avsdn_tf import data

    folder = str(tmp_path_factory.mktemp("tensorflow_datasets"))
    data.open_dataset("tfds_ave/synthetic", folder)
    return folder


@pytest.fixture
def official():
    """AVE's released small files."""
    folder = SHARED / "ave_official"
    if not folder.is_dir():
        pytest.skip("AVE's released files are not at hand")
    return folder


@pytest.fixture
def rng():
    return np.random.default_rng(0)
