"""The folder that one run writes: all that is needed to read and to repeat it."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from avsdn_tf.errors import UserError, first_line
from avsdn_tf.files import (
    LOCK,
    explain_unwritable,
    lock,
    remove_temporary_files,
    write_json,
    write_text,
)

# What Keras, h5py and zipfile raise on damaged files.
_READ_ERRORS = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
_PACKAGES = ("avsdn_tf", "tensorflow", "keras", "tensorflow-datasets", "numpy")
# Between the versions of a package that changed while a run was resumed.
_THEN = ", then "


class RunFolder:
    """Names the files of a run folder, and reads and writes those in JSON.

    Args:
        path: The folder. A leading `~` is expanded.

    Attributes:
        path: The folder.
        config: Settings, versions of the libraries, and the hash of the data.
        report: Scores of the test split. A folder that holds it has ended.
        model: The network of the selected epoch.
        metrics: Loss and accuracy of every epoch, as CSV.
        predictions: The network's outputs on the test split.
        page: The page to open.
        tensorboard: Folder of TensorBoard's logs.
        checkpoints: Folder of the last checkpoints.
        checksums: SHA-256 of the model. A folder that holds it has ended training.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path).expanduser()
        self.config = self.path / "config.json"
        self.report = self.path / "report.json"
        self.model = self.path / "model.keras"
        self.metrics = self.path / "metrics.csv"
        self.predictions = self.path / "predictions.npz"
        self.page = self.path / "report.html"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.checksums = self.path / "SHA256SUMS"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Create the folder if need be, and lock it against other processes.

        Raises:
            UserError: If it can't be created, or another process holds it.
        """
        with contextlib.ExitStack() as stack:
            with explain_unwritable(self.path, "Choose another folder."):
                self.path.mkdir(parents=True, exist_ok=True)
                try:
                    stack.enter_context(lock(self.path, timeout_s=0))
                except BlockingIOError as error:
                    raise UserError(
                        "Another process is training in this folder. Wait until it has "
                        "ended, or choose another folder.",
                        field="run",
                        value=self.path,
                    ) from error
                remove_temporary_files(self.path)
            yield

    def is_empty(self) -> bool:
        """Return whether the folder holds nothing but its lock."""
        return not self.path.is_dir() or all(
            path.name == LOCK for path in self.path.iterdir()
        )

    def write_config(self, settings: Mapping[str, Any], dataset_hash: str) -> None:
        """Write config.json of a new run.

        Args:
            settings: All settings, ready for JSON.
            dataset_hash: What identifies the data set.

        Raises:
            UserError: If it can't be written.
        """
        with explain_unwritable(self.path, "Choose another folder."):
            self.path.mkdir(parents=True, exist_ok=True)
            content = {
                "config": dict(settings),
                "versions": versions(),
                "dataset_hash": dataset_hash,
            }
            write_json(self.config, content)

    def add_versions(self) -> None:
        """Note the libraries' versions where a resumed run has others."""
        noted = self.read_versions()
        for package, version in versions().items():
            before = noted.get(package, "unknown")
            if before.split(_THEN)[-1] != version:
                noted[package] = f"{before}{_THEN}{version}"
        write_json(self.config, {**self._read_config(), "versions": noted})

    def matches_dataset(self, dataset_hash: str) -> bool:
        """Return whether the run was begun on a data set, given its hash."""
        return self._read_config().get("dataset_hash") == dataset_hash

    def discard(self) -> None:
        """Remove the folder of a run that ended before its first result."""
        shutil.rmtree(self.path, ignore_errors=True)

    def check_ended(self, field: str = "run") -> None:
        """Check that the folder holds a run whose training has ended.

        Args:
            field: Name of the argument that the folder was given by.

        Raises:
            UserError: If it doesn't.
        """
        for path in (self.config, self.model):
            if not path.is_file():
                raise UserError(
                    f"Expected a folder that a training run wrote. {path.name} is "
                    "missing.",
                    field=field,
                    value=self.path,
                )
        if not self.checksums.is_file():
            raise UserError(
                "Expected a run whose training has ended. This one is training or was "
                f"interrupted: it has no {self.checksums.name}. Repeat its command to "
                "resume it.",
                field=field,
                value=self.path,
            )

    def read_settings(self) -> dict[str, Any]:
        """Return the run's settings.

        Raises:
            UserError: If they can't be read.
        """
        return self._part("config")

    def read_versions(self) -> dict[str, str]:
        """Return the versions of Python and the libraries.

        Of a package that changed while the run was resumed: all versions, in order.

        Raises:
            UserError: If they can't be read.
        """
        return self._part("versions")

    def read_report(self) -> dict[str, Any]:
        """Return the report of the test split.

        Raises:
            UserError: If it can't be read.
        """
        return _read_json(self.report, "the report of a finished run")

    def load_model(self) -> keras.Model:
        """Load the saved model without running any code that the file holds.

        Raises:
            UserError: If it can't be loaded, or its checksum is another one.
        """
        if self.checksums.is_file() and self.model.is_file():
            expected = self.checksums.read_text().split()[:1]
            if [_sha256(self.model)] != expected:
                raise UserError(
                    f"{self.model}: its checksum is not the one in "
                    f"{self.checksums.name}, so it is not the model that training "
                    "wrote. Copy it again, or train again."
                )
        return load_model_file(self.model)

    def write_checksums(self) -> None:
        """Write the model's SHA-256, as `sha256sum --check SHA256SUMS` reads it."""
        write_text(self.checksums, f"{_sha256(self.model)}  {self.model.name}\n")

    def _read_config(self) -> dict[str, Any]:
        return _read_json(self.config, "the settings that a training run wrote")

    def _part(self, name: str) -> dict[str, Any]:
        value = self._read_config().get(name)
        if not isinstance(value, dict):
            raise UserError(
                f"{self.config}: expected an object {name!r}, as a training run writes "
                f"it. Received: {value!r}"
            )
        return value


def load_model_file(path: pathlib.Path) -> keras.Model:
    """Load a `.keras` file without running any code that it holds.

    Raises:
        UserError: If it can't be loaded.
    """
    try:
        return keras.models.load_model(path, safe_mode=True)
    except _READ_ERRORS as error:
        raise UserError(
            f"{path}: expected a model that this version of avsdn_tf can load. "
            f"Received: {first_line(error)}"
        ) from error


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    return found | {package: package_version(package) for package in _PACKAGES}


def package_version(package: str) -> str:
    """Return a package's version, or `"absent"` if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _read_json(path: pathlib.Path, what: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"{type(value).__name__} instead of an object")
        return value
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected {what}. Received: {error}") from error


def _sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
