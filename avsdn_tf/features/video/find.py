"""Find the video files that paths and folders stand for."""

import os
import pathlib
from collections.abc import Sequence

from avsdn_tf.errors import UserError

_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv"),
    *(".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob"),
    *(".webm", ".wmv"),
)


def find_videos(paths: Sequence[str | os.PathLike[str]]) -> list[pathlib.Path]:
    """Return the videos in files and folders, each once under its first path.

    Folders are searched with their subfolders, without hidden files, such as those that
    macOS writes beside others. As long as one file exists, the result includes files
    that don't exist and folders without videos: these fail when they are read, and the
    other videos go on.

    Raises:
        UserError: If there is no video at all.
    """
    videos = {}
    for path in map(pathlib.Path, paths):
        found = [path]
        # os.path.isdir accepts any name; Path.is_dir raises for some.
        if os.path.isdir(path):
            found = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in _SUFFIXES
                and not file.name.startswith(".")
                and os.path.isfile(file)
            ) or [path]
        for file in found:
            videos.setdefault(os.path.realpath(file), file)
    if not any(map(os.path.isfile, videos)):
        received = ", ".join(map(str, paths)) or "none"
        raise UserError(
            "Expected at least one video, or a folder of videos "
            f"({', '.join(_SUFFIXES)}). Received: {received}"
        )
    return list(videos.values())
