"""Find AVE's files in the manual folder, and download missing files."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator

import requests
import tensorflow_datasets as tfds
from absl import logging

from avsdn_tf.errors import first_line
from avsdn_tf.files import LOCK, lock
from tfds_ave.configs import AveConfig
from tfds_ave.errors import DatasetError

_REPOSITORY = "https://raw.githubusercontent.com/YapengTian/AVE-ECCV18/93f843f/data/"
_DRIVE = "https://drive.google.com/uc?export=download&id="

ANNOTATIONS = "Annotations.txt"
AUDIO = "audio_feature.h5"
AUDIO_NOISY = "audio_feature_noisy.h5"
ORDERS = {
    "train": "train_order.h5",
    "validation": "val_order.h5",
    "test": "test_order.h5",
}
# The splits for cross-modality localization, which divide the same rows differently.
MATCH_ORDERS = {
    split: name.replace(".h5", "_match.h5") for split, name in ORDERS.items()
}
# Optional files, which are compared with Annotations.txt.
LABELS = ("labels.h5", "mil_labels.h5", "labels_closs.h5")

# Files without a URL must be in the manual folder.
_ON_GITHUB = (ANNOTATIONS, *ORDERS.values(), *MATCH_ORDERS.values(), AUDIO_NOISY)
URLS = {name: _REPOSITORY + name for name in _ON_GITHUB} | {
    AUDIO: _DRIVE + "1F6p4BAOY-i0fDXUOhG7xHuw_fnO5exBS",
    "visual_feature.h5": _DRIVE + "1hQwbhutA3fQturduRnHMyfRqdrRHgmC9",
    "visual_feature_noisy.h5": _DRIVE + "1I3OtOHJ8G1-v5G2dHIGCfevHQPn-QyLh",
}
_NAME = "tfds_ave"
_PROBE_TIMEOUT_S = 10


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file of AVE: its official name and its path, which differ for downloads."""

    name: str
    path: pathlib.Path

    def __str__(self) -> str:
        return f"{self.name} ({self.path})"


def _required(config: AveConfig) -> list[str]:
    small = [ANNOTATIONS, *ORDERS.values(), *MATCH_ORDERS.values()]
    return small + ([AUDIO, config.visual_file] if config.source == "files" else [])


def _optional(config: AveConfig) -> list[str]:
    """Return the names of the background clips' files."""
    return [AUDIO_NOISY, config.visual_noisy_file] if config.source == "files" else []


def list_sources(
    config: AveConfig, folder: pathlib.Path
) -> tuple[list[str], list[pathlib.Path]]:
    """Return the names of small files and the paths of features, for a fingerprint.

    Files that TFDS downloads are omitted, because they don't change. Names of missing
    files of background clips are included, so that adding such a file later counts as
    a change of the data set's source.
    """
    features = [AUDIO, config.visual_file, *_optional(config)]
    names = [*_required(config), *LABELS, *_optional(config)]
    existing = [name for name in names if (folder / name).is_file()]
    missing = [name for name in _optional(config) if name not in existing]
    small = [name for name in existing if name not in features]
    data = [folder / name for name in existing if name in features]
    return [*small, *missing], data


def find_files(
    config: AveConfig,
    dl_manager: tfds.download.DownloadManager,
    manual_dir: pathlib.Path,
) -> dict[str, SourceFile]:
    """Find the files of a config, and download missing files.

    The files of background clips are optional. Missing ones are downloaded only if the
    manual folder holds the visual file of background clips, or lacks the visual file of
    labelled clips.

    Returns:
        The files by their official names.

    Raises:
        DatasetError: If files are missing; the message lists them and their URLs.
    """
    required = _required(config)
    files = {
        name: SourceFile(name, manual_dir / name)
        for name in (*required, *LABELS, *_optional(config))
        if (manual_dir / name).is_file()
    }
    missing = [name for name in required if name not in files]
    if missing:
        message = _missing_message(config, missing, manual_dir)
        if not all(name in URLS for name in missing):
            raise DatasetError(message)
        try:
            files |= _download(missing, dl_manager)
        except DatasetError as error:
            raise DatasetError(f"download failed: {error}.\n{message}") from error
    if config.source != "files":
        return files
    # Don't download background clips that a user with AVE's visual file left out.
    needs_noisy = config.visual_noisy_file in files or config.visual_file in missing
    noisy = [config.visual_noisy_file, AUDIO_NOISY]
    missing_noisy = [name for name in noisy if name not in files]
    if needs_noisy and missing_noisy:
        try:
            files |= _download(missing_noisy, dl_manager)
        except DatasetError as error:
            logging.warning(
                "No background split: %s not in %s, and the download failed (%s).",
                " and ".join(missing_noisy),
                manual_dir,
                error,
            )
    return files


def _missing_message(
    config: AveConfig, missing: list[str], manual_dir: pathlib.Path
) -> str:
    width = max(map(len, missing))
    origins = "\n".join(
        f"  {name:{width}}  {_origin(name, config)}" for name in missing
    )
    return (
        f"config {config.name!r} lacks {len(missing)} of its files in the manual "
        f"folder {manual_dir}:\n{origins}\n"
        f"Put them into {manual_dir}, or build with the manual folder that holds them "
        f"(avsdn build {config.name} --manual_dir=FOLDER)."
    )


def _origin(name: str, config: AveConfig) -> str:
    if name in URLS:
        return f"from {URLS[name]}"
    shape = ", ".join(map(str, (config.num_segments, *config.visual_shape)))
    return (
        "never released (the visual_feature_vec.h5 on Google Drive is VGG's, 512 "
        f"wide): extract it yourself, as key 'avadataset' of shape (rows, {shape}), "
        f"with one row for each row of {ANNOTATIONS}"
    )


def _download(
    names: list[str], dl_manager: tfds.download.DownloadManager
) -> dict[str, SourceFile]:
    """Download files, unless they are in TFDS's cache."""
    urls = {name: URLS[name] for name in names}
    # TFDS's folder for the downloads of this data set.
    folder = pathlib.Path(os.fspath(dl_manager.download_dir)) / _NAME
    try:
        _probe(urls, dl_manager)
        with _clean_folder(folder):
            paths = dl_manager.download(urls)
    except DatasetError:
        raise
    # requests and TFDS raise many types, such as ValueError for Google Drive.
    except Exception as error:
        raise DatasetError(first_line(error)) from error
    return {
        name: SourceFile(name, pathlib.Path(os.fspath(path)))
        for name, path in paths.items()
    }


@contextlib.contextmanager
def _clean_folder(folder: pathlib.Path) -> Iterator[None]:
    """Remove unfinished downloads before and after the block, under a lock."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock(folder):
            _remove_unfinished(folder)
            try:
                yield
            finally:
                _remove_unfinished(folder)
    finally:
        # Remove the folder if it has no downloads.
        if [path.name for path in folder.iterdir()] == [LOCK]:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_unfinished(folder: pathlib.Path) -> None:
    for path in folder.glob("*.tmp.*"):
        shutil.rmtree(path, ignore_errors=True)


def _probe(urls: dict[str, str], dl_manager: tfds.download.DownloadManager) -> None:
    """Raise if a host is unreachable, because TFDS retries each file for minutes."""
    folder = pathlib.Path(os.fspath(dl_manager.download_dir))
    # TFDS records the URLs of cached downloads in these files.
    cached = "".join(info.read_text() for info in folder.glob("**/*.INFO"))
    hosts = {url.split("/")[2]: url for url in urls.values() if url not in cached}
    for host, url in hosts.items():
        try:
            requests.head(url, timeout=_PROBE_TIMEOUT_S, allow_redirects=False)
        except requests.RequestException as error:
            raise DatasetError(f"{host} can't be reached") from error
