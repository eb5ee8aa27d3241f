"""The folder that one run writes: all that is needed to read and to repeat it."""

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
# Between the versions of a package that changed while a run was resumed.
_THEN = ", then "
# Version 0.1.0 kept the confusion matrix whole: 1,000 categories.
_MAX_REPORT_BYTES = 16 * 2**20
# A line of `sha256sum`.
_MAX_CHECKSUMS_BYTES = 4096
_EVENTS = "events.out.tfevents.*"


# It stands on each page and picture.
_Sentence = Annotated[str, StringConstraints(max_length=2000)]


class _ConfigFile(Schema, extra="ignore"):
    config: dict[str, JsonValue]
    versions: dict[str, str] = Field(default_factory=dict)
    dataset_hash: str | None = None


class _Report(Schema, extra="allow"):
    disclaimer: _Sentence | None = None
    # The name of the same in version 0.1.0.
    notice: _Sentence | None = None
    __pydantic_extra__: dict[str, Json]


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
        # The folder that was locked: another one may have got its name since.
        self._locked: os.stat_result | None = None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Create the folder if need be, and lock it against other processes.

        Raises:
            UserError: If it can't be created, or another process holds it.
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
        """Check that the path is still the folder that was locked, if one was.

        Raises:
            UserError: If the folder was moved or removed meanwhile.
        """
        if self._locked is None:
            return
        try:
            is_same = os.path.samestat(self._locked, self.path.stat())
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise UserError(
                "The folder was moved or replaced while it was written to. Nothing is "
                "written to the folder that has its name now. Move it back, and repeat "
                "the command to resume.",
                field="run",
                value=self.path,
            )

    def _written(self) -> list[str]:
        """Return the names of the files that a run writes into its folder."""
        files = (self.config, self.report, self.model, self.metrics)
        files += (self.predictions, self.page, self.checksums)
        return [*(path.name for path in files), "*.png"]

    def _check_links(self) -> None:
        """Check that the run's files and folders lie in the folder themselves.

        Raises:
            UserError: If one is a symbolic link: it may lead to anybody's file.
        """
        for path in self._own_paths():
            if path.is_symlink():
                raise UserError(
                    f"{path}: a symbolic link. Expected the files of a run in its own "
                    "folder, since a link may lead to any file. Replace it by a copy."
                )

    def _own_paths(self) -> Iterator[pathlib.Path]:
        yield from (self.path / name for name in (LOCK, *self._written()[:-1]))
        yield from (self.tensorboard, self.checkpoints, self.export)
        for folder in (self.tensorboard, self.checkpoints):
            for parent, folders, files in os.walk(folder):
                yield from (pathlib.Path(parent, n) for n in (*folders, *files))

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
        content = self._read_config()
        noted = dict(content.versions)
        for package, version in versions().items():
            before = noted.get(package, "unknown")
            if before.split(_THEN)[-1] != version:
                noted[package] = f"{before}{_THEN}{version}"
        write_json(self.config, {**content.model_dump(), "versions": noted})

    def matches_dataset(self, dataset_hash: str) -> bool:
        """Return whether the run was begun on a data set, given its hash."""
        return self._read_config().dataset_hash == dataset_hash

    def discard(self) -> None:
        """Remove what a run wrote that ended before its first result.

        Other files stay, and the folder with them.
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
            field: Name of the argument that the folder was given by.

        Raises:
            UserError: If it doesn't.
        """
        self._check_links()
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
        return self._read_config().config

    def read_versions(self) -> dict[str, str]:
        """Return the versions of Python and the libraries.

        Of a package that changed while the run was resumed: all versions, in order.

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
        """Load the saved model without running any code that the file holds.

        Raises:
            UserError: If it can't be loaded, or its checksum is another one.
        """
        # Keras takes seconds, and the command line looks at a folder before that.
        from avsdn_tf.model_file import load_model_file

        self._check_links()
        self.check_model()
        return load_model_file(self.model)

    def check_model(self) -> None:
        """Check the model against the checksum beside it, if there is one.

        Raises:
            UserError: If its checksum is another one.
        """
        has_both = self.checksums.is_file() and self.model.is_file()
        if has_both and self._read_checksum() != _sha256(self.model):
            raise UserError(
                f"{self.model}: its checksum is not the one in {self.checksums.name}, "
                "so it is not the model that training wrote. Copy it again, or train "
                "again."
            )

    def write_checksums(self) -> None:
        """Write the model's SHA-256, as `sha256sum --check SHA256SUMS` reads it."""
        self.check_in_place()
        write_text(self.checksums, f"{_sha256(self.model)}  {self.model.name}\n")

    def _read_checksum(self) -> str:
        """Return the first word of SHA256SUMS, or nothing if it can't be read."""
        try:
            content = read_bytes(self.checksums, _MAX_CHECKSUMS_BYTES)
        except (OSError, ValueError):
            return ""
        return next(iter(content.decode("ascii", "replace").split()), "")

    def _read_config(self) -> _ConfigFile:
        self._check_links()
        return read_json(
            self.config, _ConfigFile, "the settings that a training run wrote"
        )


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


def _sha256(path: pathlib.Path) -> str:
    """Return a file's SHA-256; raise UserError if it can't be read."""
    try:
        return hash_file(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read ({error}).") from error


def _remove_empty(folder: pathlib.Path) -> None:
    # A folder with somebody's files stays.
    with contextlib.suppress(OSError):
        folder.rmdir()
