"""The folder of one run: its files, their checks, and its lock."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, JsonValue, StringConstraints

from avsdn_tf.errors import UserError
from avsdn_tf.files import (
    LOCK,
    expand_user,
    explain_unwritable,
    hash_file,
    lock,
    remove_temporary_files,
    write_json,
    write_text,
)
from avsdn_tf.schemas import Json, Schema, read_bytes, read_json

if TYPE_CHECKING:
    import keras

_PACKAGES = ("avsdn_tf", "tensorflow", "keras", "tensorflow-datasets", "numpy")
# Joins the versions of a package that changed between start and resumption of a run.
_THEN = ", then "
# Reports of version 0.1.0 hold a full confusion matrix, of up to 1,000 categories.
_MAX_REPORT_BYTES = 16 * 2**20
_MAX_CHECKSUMS_BYTES = 4096
_EVENTS = "events.out.tfevents.*"

# Limit the length: each page and picture shows the disclaimer.
_Sentence = Annotated[str, StringConstraints(max_length=2000)]


class _ConfigFile(Schema, extra="ignore"):
    config: dict[str, JsonValue]
    versions: dict[str, str] = Field(default_factory=dict)
    dataset_hash: str | None = None


class _Report(Schema, extra="allow"):
    disclaimer: _Sentence | None = None
    # Name of `disclaimer` in version 0.1.0.
    notice: _Sentence | None = None
    __pydantic_extra__: dict[str, Json]


class RunFolder:
    """Paths of the files in a run folder; reads and writes the JSON files.

    Args:
        path: The folder. A leading `~` is expanded.

    Attributes:
        path: The folder.
        config: Settings, versions of the libraries, and the hash of the data.
        report: Scores of the test split. Present once the run is finished.
        model: The network of the selected epoch.
        metrics: Loss and accuracy of every epoch, as CSV.
        predictions: The network's outputs on the test split.
        page: The report as an HTML page.
        tensorboard: Folder of TensorBoard's logs.
        checkpoints: Folder of the last checkpoints.
        checksums: SHA-256 of the model. Present once training has ended.
        export: Folder of the exported networks.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(expand_user(path))
        self.config = self.path / "config.json"
        self.report = self.path / "report.json"
        self.model = self.path / "model.keras"
        self.metrics = self.path / "metrics.csv"
        self.predictions = self.path / "predictions.npz"
        self.page = self.path / "report.html"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.checksums = self.path / "SHA256SUMS"
        self.export = self.path / "export"
        # Identifies the locked folder, even if another folder takes its name.
        self._locked: os.stat_result | None = None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Create the folder if it doesn't exist, and lock it against other processes.

        Raises:
            UserError: If it can't be created, or another process holds the lock.
        """
        with contextlib.ExitStack() as stack:
            with explain_unwritable(self.path, "Choose another folder."):
                self.path.mkdir(parents=True, exist_ok=True)
                self._check_links()
                try:
                    stack.enter_context(lock(self.path, timeout_s=0))
                except BlockingIOError as error:
                    raise UserError(
                        "Another process is training in this folder. Wait until it has "
                        "ended, or choose another folder.",
                        field="run",
                        value=self.path,
                    ) from error
                self._locked = self.path.stat()
                stack.callback(setattr, self, "_locked", None)
                remove_temporary_files(self.path, *self._written())
            yield

    def check_in_place(self) -> None:
        """Check that the path still leads to the locked folder, if it is locked.

        Raises:
            UserError: If the folder was moved or removed.
        """
        if self._locked is None:
            return
        try:
            is_same = os.path.samestat(self._locked, self.path.stat())
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise UserError(
                "The run's folder was moved or replaced while it was used. Move the "
                "folder back, and repeat the command to resume.",
                field="run",
                value=self.path,
            )

    def _written(self) -> list[str]:
        """Return name patterns of the files that a run writes into its folder."""
        files = (self.config, self.report, self.model, self.metrics)
        files += (self.predictions, self.page, self.checksums)
        return [*(path.name for path in files), "*.png"]

    def _check_links(self) -> None:
        """Raise UserError if a file or folder of the run is a symbolic link."""
        for path in self._own_paths():
            if path.is_symlink():
                raise UserError(
                    f"{path}: a symbolic link. Run folders must not contain links, "
                    "which may lead to any file. Replace it by a copy."
                )

    def _own_paths(self) -> Iterator[pathlib.Path]:
        yield from (self.path / name for name in (LOCK, *self._written()[:-1]))
        yield from (self.tensorboard, self.checkpoints, self.export)
        for folder in (self.tensorboard, self.checkpoints):
            for parent, folders, files in os.walk(folder):
                yield from (pathlib.Path(parent, n) for n in (*folders, *files))

    def is_empty(self) -> bool:
        """Return whether the folder is absent, or holds only its lock file."""
        return not self.path.is_dir() or all(
            path.name == LOCK for path in self.path.iterdir()
        )

    def check_startable(self, resume: bool = True) -> None:
        """Check that a training can begin in the folder, or resume there.

        Args:
            resume: Whether an interrupted run in the folder may be resumed.

        Raises:
            UserError: If the folder holds a run that has ended, or other files.
        """
        where = {"field": "run", "value": self.path}
        if self.is_empty():
            return
        if not (resume and self.config.is_file()):
            raise UserError(
                "The folder holds files. Expected a new or empty folder. Choose "
                "another name, or remove the folder.",
                **where,
            )
        if self.report.is_file():
            raise UserError(
                "This run has ended. Choose another folder; `evaluate` scores the "
                "run again.",
                **where,
            )

    def write_config(self, settings: Mapping[str, Any], dataset_hash: str) -> None:
        """Write config.json of a new run.

        Args:
            settings: All settings, ready for JSON.
            dataset_hash: Hash that identifies the data set's content.

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
        """Record the libraries' changed versions in config.json of a resumed run."""
        content = self._read_config()
        recorded = dict(content.versions)
        for package, version in versions().items():
            before = recorded.get(package, "unknown")
            if before.split(_THEN)[-1] != version:
                recorded[package] = f"{before}{_THEN}{version}"
        write_json(self.config, {**content.model_dump(), "versions": recorded})

    def matches_dataset(self, dataset_hash: str) -> bool:
        """Return whether the run was trained on the data set of this hash."""
        return self._read_config().dataset_hash == dataset_hash

    def discard(self) -> None:
        """Remove the files of a run that failed before its first result.

        The folder is removed too unless it holds other files.
        """
        with contextlib.suppress(UserError, OSError):
            self.check_in_place()
            remove_temporary_files(self.path, *self._written())
            logs = self.tensorboard
            for path in (*logs.glob(f"*/{_EVENTS}"), self.metrics, self.config):
                path.unlink(missing_ok=True)
            for folder in (*logs.glob("*/"), logs, self.checkpoints):
                _remove_empty(folder)
            (self.path / LOCK).unlink(missing_ok=True)
            _remove_empty(self.path)

    def check_ended(self, field: str = "run") -> None:
        """Check that the folder holds a run whose training has ended.

        Args:
            field: Name of the caller's argument for the folder, for the message.

        Raises:
            UserError: If files are missing, or training has not ended.
        """
        self._check_links()
        for path in (self.config, self.model):
            if not path.is_file():
                raise UserError(
                    f"Expected a folder of a training run. {path.name} is missing.",
                    field=field,
                    value=self.path,
                )
        if not self.checksums.is_file():
            raise UserError(
                "Expected a run whose training has ended. This run is training or was "
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
        return self._read_config().config

    def read_versions(self) -> dict[str, str]:
        """Return the versions of Python and the libraries by name.

        A version that changed in a resumed run reads "3.0, then 3.1".

        Raises:
            UserError: If they can't be read.
        """
        return self._read_config().versions

    def read_report(self) -> dict[str, Any]:
        """Return the report of the test split.

        Raises:
            UserError: If it can't be read.
        """
        self._check_links()
        what = "the report of a finished run"
        report = read_json(self.report, _Report, what, max_bytes=_MAX_REPORT_BYTES)
        return report.model_dump(exclude_unset=True)

    def load_model(self) -> "keras.Model":
        """Load the saved model without running code from the file.

        Raises:
            UserError: If it can't be loaded, or doesn't match its checksum.
        """
        # Import late: Keras takes seconds, and the command line checks folders first.
        from avsdn_tf.model_file import load_model_file

        self._check_links()
        self.check_model()
        return load_model_file(self.model)

    def check_model(self) -> None:
        """Check the model against SHA256SUMS, if there is one.

        Raises:
            UserError: If the checksums differ.
        """
        has_both = self.checksums.is_file() and self.model.is_file()
        if has_both and self._read_checksum() != _sha256(self.model):
            raise UserError(
                f"{self.model}: its checksum differs from {self.checksums.name}: the "
                "file is damaged, or not the model that training wrote. Copy it again, "
                "or train again."
            )

    def write_checksums(self) -> None:
        """Write the model's SHA-256 in the format of `sha256sum`."""
        self.check_in_place()
        write_text(self.checksums, f"{_sha256(self.model)}  {self.model.name}\n")

    def _read_checksum(self) -> str:
        """Return the first word of SHA256SUMS, or "" if it can't be read."""
        try:
            content = read_bytes(self.checksums, _MAX_CHECKSUMS_BYTES)
        except (OSError, ValueError):
            return ""
        return next(iter(content.decode("ascii", "replace").split()), "")

    def _read_config(self) -> _ConfigFile:
        self._check_links()
        return read_json(self.config, _ConfigFile, "the settings of a training run")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    python = {"python": platform.python_version()}
    return python | {package: package_version(package) for package in _PACKAGES}


def package_version(package: str) -> str:
    """Return a package's version, or `"absent"` if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _sha256(path: pathlib.Path) -> str:
    """Return a file's SHA-256; raise UserError if it can't be read."""
    try:
        return hash_file(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read ({error}).") from error


def _remove_empty(folder: pathlib.Path) -> None:
    """Remove a folder unless it holds files."""
    with contextlib.suppress(OSError):
        folder.rmdir()
