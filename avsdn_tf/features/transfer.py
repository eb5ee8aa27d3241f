"""Download files and archives; resume interrupted downloads."""

import contextlib
import http.client
import os
import pathlib
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable

from avsdn_tf.files import lock

# Called with the bytes received, and the total or None.
Progress = Callable[[int, int | None], None]

_TIMEOUT_S = 30
_READ_BYTES = 1 << 20
_SHOWN_BYTES = 40


def ignore(done: int, total: int | None) -> None:
    """Report nothing."""
    del done, total


def download(
    address: str, path: pathlib.Path, on_progress: Progress = ignore
) -> pathlib.Path:
    """Download a file unless it exists.

    An interrupted download, `PATH.part`, resumes if the server has the same version of
    the file and supports ranges. A lock on the folder makes other processes wait.

    Args:
        address: URL, http or https.
        path: Path of the downloaded file.
        on_progress: Called as bytes arrive.

    Returns:
        `path`.

    Raises:
        OSError: If the server doesn't answer, refuses or breaks the connection, or the
            file can't be written. `PATH.part` remains for the next call.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path.parent):
        if not path.is_file():
            part = path.with_name(f"{path.name}.part")
            _complete(address, part, on_progress)
            os.replace(part, path)
            _version_of(part).unlink(missing_ok=True)
    return path


def _version_of(part: pathlib.Path) -> pathlib.Path:
    """Return the path of the file that holds the ETag of an unfinished download."""
    return part.with_name(f"{part.name}.version")


def _complete(address: str, part: pathlib.Path, on_progress: Progress) -> None:
    """Download the missing bytes of `part`."""
    version = _version_of(part)
    headers = {}
    if part.is_file() and version.is_file():
        headers = {
            "Range": f"bytes={part.stat().st_size}-",
            # A server with another version sends the whole file.
            "If-Range": version.read_text(),
        }
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            is_rest = response.status == http.client.PARTIAL_CONTENT
            length = response.headers.get("Content-Length")
            with part.open("ab" if is_rest else "wb") as file:
                _write_version(version, response.headers.get("ETag"))
                total = None if length is None else file.tell() + int(length)
                on_progress(file.tell(), total)
                while content := response.read(_READ_BYTES):
                    file.write(content)
                    on_progress(file.tell(), total)
                num_bytes = file.tell()
    except urllib.error.HTTPError as error:
        # `part` is as long as the server's file, or longer. Start again: `part` may be
        # of another version if the server ignores `If-Range`.
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            version.unlink()
            _complete(address, part, on_progress)
            return
        raise
    except http.client.HTTPException as error:
        raise ConnectionError(f"the connection broke ({error!r})") from error
    if total not in (None, num_bytes):
        raise ConnectionError(
            f"the connection ended after {num_bytes:,} of {total:,} bytes. Repeat the "
            "command to download the rest"
        )


def _write_version(path: pathlib.Path, tag: str | None) -> None:
    """Save the ETag for `If-Range`, unless it is weak, which `If-Range` rejects."""
    path.unlink(missing_ok=True)
    if tag and not tag.startswith("W/"):
        path.write_text(tag)


def download_module(
    address: str, folder: pathlib.Path, on_progress: Progress = ignore
) -> pathlib.Path:
    """Download an archive of a SavedModel and unpack it into a folder.

    Args:
        address: URL of a `.tar.gz`.
        folder: The new folder. It appears when all files are unpacked.
        on_progress: As in `download`.

    Returns:
        `folder`.

    Raises:
        OSError: As in `download`, or if the file is not an archive of a SavedModel.
    """
    archive = download(address, folder.with_name(f"{folder.name}.tar.gz"), on_progress)
    with lock(folder.parent), contextlib.suppress(FileExistsError):
        if folder.is_dir():
            return folder
        tmp = pathlib.Path(tempfile.mkdtemp(prefix="tmp-", dir=folder.parent))
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(tmp, filter="data")
            if not (tmp / "saved_model.pb").is_file():
                raise OSError("the archive holds no SavedModel")
            # Let other users read the cache: mkdtemp creates private folders.
            tmp.chmod(0o755)
            tmp.rename(folder)
        except (tarfile.TarError, EOFError) as error:
            with archive.open("rb") as file:
                start = file.read(_SHOWN_BYTES)
            raise OSError(
                f"expected an archive, received {start!a} ({error})"
            ) from error
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
            archive.unlink()
    return folder
