"""The AVE data set for TFDS. Importing this package registers `tfds_ave`."""

from tfds_ave.errors import DatasetError, install_excepthook
from tfds_ave.tfds_ave_dataset_builder import Builder

install_excepthook()

__all__ = ["Builder", "DatasetError"]
