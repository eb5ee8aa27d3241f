"""Where the public backbones come from, and where their downloads lie."""

import hashlib
import logging
import os
import pathlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from avsdn_tf.backbones import VGGISH, YAMNET
from avsdn_tf.errors import first_line
from avsdn_tf.features.transfer import Progress, download, download_module, ignore
from avsdn_tf.files import expand_user

_LOGGER = logging.getLogger(__name__)
_KAGGLE = "https://www.kaggle.com/api/v1/models/google/{0}/tensorFlow2/{0}/1/download"
# Tried in this order where TensorFlow Hub doesn't answer. The last one is Google's
# original checkpoint of VGGish.
ALTERNATIVES = {
    VGGISH: (
        _KAGGLE.format("vggish"),
        "https://storage.googleapis.com/audioset/vggish_model.ckpt",
    ),
    YAMNET: (_KAGGLE.format("yamnet"),),
}


def resolve(source: str, on_progress: Progress = ignore) -> str:
    """Return the path of an address's download, or a path as it is.

    An address that is in a cache is not asked for again. Where one fails that has
    alternatives, the next one is tried, and what failed is logged once.

    Args:
        source: An address, or a path.
        on_progress: Called as bytes arrive.

    Raises:
        OSError: If no source answers.
    """
    if "://" not in source:
        return source
    addresses = (source, *ALTERNATIVES.get(source, ()))
    for address in addresses:
        if (path := cached(address)) is not None:
            return str(path)
    failures = []
    for address in addresses:
        try:
            path = _download(address, on_progress)
        # Errors of many types: no network, no archive, a full disk.
        except Exception as error:
            failures.append(f"{address}: {first_line(error)}")
            continue
        if failures:
            _LOGGER.warning("Took %s. Failed: %s", address, "; ".join(failures))
        return path
    raise OSError("; ".join(failures))


def cached(address: str) -> pathlib.Path | None:
    """Return where the whole download of an address lies, or None."""
    path = _place(address)
    is_there = path.is_file() if _is_file(address) else path.is_dir()
    return path if is_there and (path.is_file() or any(path.iterdir())) else None


def _place(address: str) -> pathlib.Path:
    """Return where the download of an address belongs."""
    if _is_file(address):
        return keras_cache() / "models" / os.path.basename(address)
    # As TensorFlow Hub names a folder.
    name = hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
    return hub_cache() / name


def hub_cache() -> pathlib.Path:
    """Return TensorFlow Hub's folder of downloads."""
    return pathlib.Path(tensorflow_hub().resolver.tfhub_cache_dir(use_temp=True))


def keras_cache() -> pathlib.Path:
    """Return Keras's folder of downloads."""
    return pathlib.Path(expand_user(os.environ.get("KERAS_HOME") or "~/.keras"))


def _download(address: str, on_progress: Progress) -> str:
    if not address.startswith(("http://", "https://")):
        return tensorflow_hub().resolve(address)
    if _is_file(address):
        return str(download(address, _place(address), on_progress))
    # What TensorFlow Hub's own client asks for.
    query = "&" if "?" in address else "?"
    archive = f"{address}{query}tf-hub-format=compressed"
    return str(download_module(archive, _place(address), on_progress))


def _is_file(address: str) -> bool:
    return address.endswith(".ckpt")


def tensorflow_hub() -> ModuleType:
    """Import TensorFlow Hub, which training doesn't need and takes half a second."""
    with _replaced_pkg_resources():
        import tensorflow_hub
        import tensorflow_hub.resolver

    return tensorflow_hub


@contextmanager
def _replaced_pkg_resources() -> Iterator[None]:
    """Replace pkg_resources, of which tensorflow_hub 0.16.1 takes one function.

    Setuptools 82 lacks pkg_resources, and earlier versions warn on its import.
    """
    name = "pkg_resources"
    if name in sys.modules:
        yield
        return
    # A dependency of TensorFlow.
    from packaging.version import parse

    sys.modules[name] = ModuleType(name)
    sys.modules[name].parse_version = parse
    try:
        yield
    finally:
        del sys.modules[name]
