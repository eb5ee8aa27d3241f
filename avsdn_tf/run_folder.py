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
from collections.abc import Iterator
from typing import Any

import keras

from avsdn_tf.config import Config
from avsdn_tf.errors import UserError, first_line
from avsdn_tf.files import LOCK, explain_unwritable, locked, write_json, write_text

# What Keras, h5py and zipfile raise on damaged files.
_DAMAGE = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
_DIGEST = "dataset_digest"
_NETWORKS = "networks"
# Between the versions of a package, of a run that went on with another one.
_THEN = ", then "
_PACKAGES = ("avsdn_tf", "tensorflow", "keras", "tensorflow-datasets", "numpy")


class RunFolder:
    """Names the files of a run folder, and reads and writes the JSON ones.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
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
    def hold(self) -> Iterator[None]:
        """Makes the folder if need be, and keeps other processes from training in it.

        Raises:
            UserError: If it can't be made, or another process holds it.
        """
        with contextlib.ExitStack() as stack:
            with explain_unwritable(self.path, "Choose another folder by --run."):
                self.path.mkdir(parents=True, exist_ok=True)
                try:
                    stack.enter_context(locked(self.path, wait=False))
                except BlockingIOError as error:
                    raise UserError(
                        f"--run={self.path}: expected a folder that nobody else writes "
                        "to. Received one that another process is training in. Wait "
                        "until it has ended, or choose another folder."
                    ) from error
            yield

    def create(
        self,
        config: Config,
        digest: str,
        networks: dict[str, str] | None = None,
        resume: bool = False,
    ) -> bool:
        """Makes the folder, and writes the configuration and the versions.

        Args:
            config: The configuration.
            digest: That of the data set.
            networks: What its features were made with, if it was built from videos.
            resume: Whether a run of the same configuration that has not ended may be
                there already.

        Returns:
            Whether one was there.

        Raises:
            UserError: If it can't be written, or already holds something else.
        """
        with explain_unwritable(self.path, "Choose another folder by --run."):
            if self.path.is_dir() and any(
                path.name != LOCK for path in self.path.iterdir()
            ):
                if resume and self.config.is_file():
                    self._check_resumable(config, digest)
                    self._note_versions()
                    return True
                raise UserError(
                    f"--run={self.path}: expected a new or empty folder. Received one "
                    "that holds files. Choose another name, or remove it."
                )
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                content = {
                    "config": config.to_dict(),
                    "versions": versions(),
                    _DIGEST: digest,
                    _NETWORKS: networks,
                }
                write_json(self.config, content)
            except BaseException:
                self.discard()
                raise
            return False

    def _check_resumable(self, config: Config, digest: str) -> None:
        if self.report.is_file():
            raise UserError(
                f"--run={self.path}: expected a new folder, or a run that has not "
                "ended. Received one that has. Choose another name; `evaluate --run=` "
                "scores it again."
            )
        self.check_settings(config)
        if not self.has_learnt_from(digest):
            raise UserError(
                f"--run={self.path}: expected {config.dataset} as it was when this run "
                "was begun. Received one that was built anew since, from something "
                "else. Build it from the same, or begin in another folder."
            )

    def _note_versions(self) -> None:
        """Adds the versions with which a run goes on, where they are others."""
        noted = self.read_versions()
        for package, version in versions().items():
            before = noted.get(package, "unknown")
            if before.split(_THEN)[-1] != version:
                noted[package] = f"{before}{_THEN}{version}"
        content = json.loads(self.config.read_text())
        write_json(self.config, {**content, "versions": noted})

    def has_learnt_from(self, digest: str) -> bool:
        """Returns whether a digest is that of the data set that the run was begun on.

        Runs of before there was one hold none, and may have been begun on any.

        Raises:
            UserError: If the configuration can't be read.
        """
        return self._read(_DIGEST, digest) == digest

    def check_settings(self, config: Config) -> None:
        """Checks that a run was begun with a configuration.

        Raises:
            UserError: If not; the message names the difference.
        """
        if not self.config.is_file():
            raise UserError(
                f"--run={self.path}: expected the {self.config.name} that the chief "
                "has written there. Received none. Is --run on a disk that all workers "
                "share?"
            )
        found = self._read_settings().to_dict()
        changed = [
            f"{name} is {found[name]} there and {value} here"
            for name, value in config.to_dict().items()
            if found[name] != value
        ]
        if changed:
            raise UserError(
                f"--run={self.path}: expected the settings that this run was begun "
                f"with. Received others: {'; '.join(changed)}. Repeat those, or choose "
                "another folder."
            )

    def discard(self) -> None:
        """Removes the folder of a run that ended before its first result."""
        shutil.rmtree(self.path, ignore_errors=True)

    def read_config(self, flag: str = "run") -> Config:
        """Returns the run's configuration.

        Args:
            flag: Name of the flag that the folder was given by, for the message.

        Raises:
            UserError: If the folder holds no run whose training has ended.
        """
        for path in (self.config, self.model):
            if not path.is_file():
                raise UserError(
                    f"--{flag}={self.path}: expected a folder that a training run "
                    f"wrote. {path.name} is missing."
                )
        if not self.checksums.is_file():
            raise UserError(
                f"--{flag}={self.path}: expected a run whose training has ended. "
                f"Received one that is training or was interrupted: it has no "
                f"{self.checksums.name}. The command that began it goes on with it."
            )
        return self._read_settings()

    def load_model(self) -> keras.Model:
        """Returns the saved model; code in the file is never run.

        Raises:
            UserError: If it can't be loaded, or is not what training wrote.
        """
        if self.checksums.is_file():
            expected = self.checksums.read_text().split()[:1]
            if self.model.is_file() and [_digest(self.model)] != expected:
                raise UserError(
                    f"{self.model}: expected the model that training wrote. Received "
                    f"a file that is not the one whose digest {self.checksums.name} "
                    "has. Copy it anew, or train again."
                )
        return load_model_file(self.model)

    def seal(self) -> None:
        """Writes down the digest of the model, which `load_model` compares.

        `sha256sum --check SHA256SUMS` compares it too.
        """
        write_text(self.checksums, f"{_digest(self.model)}  {self.model.name}\n")

    def read_networks(self) -> dict[str, str]:
        """Returns what `features.extract.build_extractor` takes besides a network.

        It is what the run's features were made with, if its data set was built from
        videos, and empty else.

        Raises:
            UserError: If the configuration can't be read.
        """
        networks = dict(self._read(_NETWORKS, {}) or {})
        networks.pop("visual_network", None)
        return networks

    def read_report(self) -> dict[str, Any]:
        """Returns the report of the test split.

        Raises:
            UserError: If it can't be read.
        """
        try:
            return dict(json.loads(self.report.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{self.report}: expected the report of a finished run. "
                f"Received: {error}"
            ) from error

    def read_versions(self) -> dict[str, str]:
        """Returns the versions that the run was made with.

        Of a package that was another when the run went on, all that there were.
        """
        return dict(self._read("versions"))

    def _read_settings(self) -> Config:
        try:
            return Config.from_dict(dict(self._read("config")))
        # A value of a wrong type fails in a comparison.
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{self.config}: expected settings of a training run. Received: {error}"
            ) from error

    def _read(self, part: str, default: Any = None) -> Any:
        try:
            content = json.loads(self.config.read_text())
            return content[part] if default is None else content.get(part, default)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:
            raise UserError(
                f"{self.config}: expected what a training run wrote. "
                f"Received: {type(error).__name__}: {error}"
            ) from error


def load_model_file(path: pathlib.Path) -> keras.Model:
    """Returns the network of a `.keras` file; code in the file is never run.

    Raises:
        UserError: If it can't be loaded.
    """
    try:
        return keras.models.load_model(path, safe_mode=True)
    except _DAMAGE as error:
        raise UserError(
            f"{path}: expected a model that this version of avsdn_tf can load. "
            f"Received: {first_line(error)}"
        ) from error


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    return found | {package: version_if_any(package) for package in _PACKAGES}


def version_if_any(package: str) -> str:
    """Returns a package's version, or "absent" if none of this name is installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
