"""Where AVE's files come from: the manual folder first, then the network."""

import dataclasses
import os
import pathlib
import shutil

import requests
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.download import resource

from tfds_ave.configs import AveConfig
from tfds_ave.errors import DatasetError

# GitHub takes the short name of a commit for the whole one.
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
# Other splits of the same rows, for the cross-modality task alone.
MATCH_ORDERS = {
    "train": "train_order_match.h5",
    "validation": "val_order_match.h5",
    "test": "test_order_match.h5",
}
# Not needed, since Annotations.txt gives the labels: compared where they are present.
LABELS = ("labels.h5", "mil_labels.h5", "labels_closs.h5")

# A file without an address here can only come from the manual folder.
URLS = {
    **{
        name: _REPOSITORY + name
        for name in (
            ANNOTATIONS,
            *ORDERS.values(),
            *MATCH_ORDERS.values(),
            AUDIO_NOISY,
        )
    },
    AUDIO: _DRIVE + "1F6p4BAOY-i0fDXUOhG7xHuw_fnO5exBS",
    "visual_feature.h5": _DRIVE + "1hQwbhutA3fQturduRnHMyfRqdrRHgmC9",
    "visual_feature_noisy.h5": _DRIVE + "1I3OtOHJ8G1-v5G2dHIGCfevHQPn-QyLh",
}
_PROBE_TIMEOUT_S = 10


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file of AVE's, under its official name, and where it lies.

    TFDS renames what it downloads, so the path alone does not say which file it is.
    """

    name: str
    path: pathlib.Path

    def __str__(self) -> str:
        return f"{self.name} ({self.path})"


def find_files(
    config: AveConfig,
    dl_manager: tfds.download.DownloadManager,
    manual_dir: pathlib.Path,
) -> dict[str, SourceFile]:
    """Finds the files that a config reads, and downloads those that it lacks.

    The background clips come along only where both of their files are there. Their
    audio is small and downloaded; their visual file must lie in the manual folder, or
    is downloaded together with the visual file of the labelled clips.

    Args:
        config: The config that is being built.
        dl_manager: Downloads.
        manual_dir: Folder of the files that somebody put there; need not exist.

    Returns:
        The files by their official names.

    Raises:
        DatasetError: If a file is missing; it names all that are, where to get each,
            and where to put it.
    """
    required = [ANNOTATIONS, *ORDERS.values(), *MATCH_ORDERS.values()]
    optional = [*LABELS]
    if config.source == "files":
        required += [AUDIO, config.visual_file]
        optional += [AUDIO_NOISY, config.visual_noisy_file]
    found = {
        name: SourceFile(name, manual_dir / name)
        for name in (*required, *optional)
        if (manual_dir / name).is_file()
    }
    missing = [name for name in required if name not in found]
    if missing:
        message = _missing_message(config, missing, manual_dir)
        if not all(name in URLS for name in missing):
            raise DatasetError(message)
        try:
            found |= _download(missing, dl_manager)
        except _DownloadFailedError as error:
            raise DatasetError(f"download failed: {error}\n{message}") from error
    if config.source != "files":
        return found
    noisy = [config.visual_noisy_file, AUDIO_NOISY]
    # A manual folder is taken as it is: without that file nobody asked for background.
    wanted = config.visual_noisy_file in found or config.visual_file in missing
    fetch = [name for name in noisy if name not in found]
    if wanted and fetch:
        try:
            found |= _download(fetch, dl_manager)
        except _DownloadFailedError as error:
            logging.warning(
                "No background split: %s not in %s, and no download (%s).",
                " and ".join(fetch),
                manual_dir,
                error,
            )
    return found


def _missing_message(
    config: AveConfig, missing: list[str], manual_dir: pathlib.Path
) -> str:
    width = max(map(len, missing))
    origins = "\n".join(
        f"  {name:{width}}  {_origin(name, config)}" for name in missing
    )
    return (
        f"config {config.name!r} lacks {len(missing)} of its files. Expected each in "
        f"the manual folder {manual_dir}, received none of:\n{origins}\n"
        f"Put them into {manual_dir}, or name their folder with --manual_dir=FOLDER, "
        "and build again."
    )


def _origin(name: str, config: AveConfig) -> str:
    if name in URLS:
        return f"from {URLS[name]}"
    shape = ", ".join(map(str, (config.num_segments, *config.visual_shape)))
    return (
        f"never released (the visual_feature_vec.h5 on Google Drive is VGG's, 512 "
        f"wide): extract it yourself as key 'avadataset', (rows, {shape}), one row a "
        f"row of {ANNOTATIONS}"
    )


class _DownloadFailedError(Exception):
    """A download did not work, for whatever reason."""


def _download(
    names: list[str], dl_manager: tfds.download.DownloadManager
) -> dict[str, SourceFile]:
    """Downloads files from their addresses, or takes those that TFDS downloaded before.

    Raises:
        _DownloadFailedError: If one fails. Half-written files are removed.
    """
    urls = {name: URLS[name] for name in names}
    before = _unfinished(urls, dl_manager)
    try:
        _probe(urls, dl_manager)
        paths = dl_manager.download(urls)
    # TFDS raises errors of requests, its own, and ValueError for a page of Drive's.
    except Exception as error:
        for folder in _unfinished(urls, dl_manager) - before:
            shutil.rmtree(folder, ignore_errors=True)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _DownloadFailedError(reason) from error
    return {
        name: SourceFile(name, pathlib.Path(os.fspath(path)))
        for name, path in paths.items()
    }


def _probe(urls: dict[str, str], dl_manager: tfds.download.DownloadManager) -> None:
    """Raises if a host cannot be reached: TFDS would try each file for minutes."""
    folder = pathlib.Path(os.fspath(dl_manager.download_dir))
    # TFDS notes the address of what it has downloaded; that needs no network.
    notes = "".join(note.read_text() for note in folder.glob("**/*.INFO"))
    hosts = {url.split("/")[2]: url for url in urls.values() if url not in notes}
    for url in hosts.values():
        requests.head(url, timeout=_PROBE_TIMEOUT_S, allow_redirects=False)


def _unfinished(
    urls: dict[str, str], dl_manager: tfds.download.DownloadManager
) -> set[pathlib.Path]:
    """Returns the folders of unfinished downloads of these addresses."""
    folder = pathlib.Path(os.fspath(dl_manager.download_dir))
    return {
        path
        for url in urls.values()
        for path in folder.glob(f"**/{resource.get_dl_fname(url)}.tmp.*")
    }
