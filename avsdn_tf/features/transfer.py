"""Downloads that go on where they stopped."""

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

# Called with the bytes received and the total; None if unknown.
Progress = Callable[[int, int | None], None]

_TIMEOUT_S = 30
_READ_BYTES = 1 << 20
_SHOWN = 40


def ignore(done: int, total: int | None) -> None:
    """Report nothing."""
    del done, total


def download(
    address: str, path: pathlib.Path, on_progress: Progress = ignore
) -> pathlib.Path:
    """Download a file, unless it is there.

    An interrupted download, `PATH.part`, resumes if the server has the same file and
    supports ranges. One process downloads at a time.

    Args:
        address: Its address, http or https.
        path: Where it goes.
        on_progress: Called as bytes arrive.

    Returns:
        The path.

    Raises:
        OSError: If the server doesn't answer, refuses or ends early, or the file can't
            be written. What has arrived is kept for the next try.
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
    """Return the file that names the server's version of an unfinished download."""
    return part.with_name(f"{part.name}.version")


def _complete(address: str, part: pathlib.Path, on_progress: Progress) -> None:
    """Fetch what is missing of an unfinished download."""
    version = _version_of(part)
    headers = {}
    if part.is_file() and version.is_file():
        headers = {
            "Range": f"bytes={part.stat().st_size}-",
            # Without the same version, the server sends the whole file.
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
        # The part is already complete: start again.
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
            "command for the rest"
        )


def _write_version(path: pathlib.Path, tag: str | None) -> None:
    """Save the ETag for `If-Range`, which accepts no weak tags."""
    path.unlink(missing_ok=True)
    if tag and not tag.startswith("W/"):
        path.write_text(tag)


def download_module(
    address: str, folder: pathlib.Path, on_progress: Progress = ignore
) -> pathlib.Path:
    """Download an archive of a SavedModel and unpack it into a folder.

    Args:
        address: Address of a `.tar.gz`.
        folder: The folder, which appears when it is whole.
        on_progress: As in `download`.

    Returns:
        The folder.

    Raises:
        OSError: As `download`, or what arrives is no archive of a SavedModel.
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
            tmp.chmod(0o755)  # Others may read the cache.
            tmp.rename(folder)
        except (tarfile.TarError, EOFError) as error:
            with archive.open("rb") as file:
                begin = file.read(_SHOWN)
            raise OSError(
                f"expected an archive, received {begin!a} ({error})"
            ) from error
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
            archive.unlink()
    return folder
