"""Resolve addresses of public backbones to paths in the download caches."""

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
# Mirrors to try, in this order, if TensorFlow Hub fails. VGGish's last mirror is
# Google's original checkpoint.
ALTERNATIVES = {
    VGGISH: (
        _KAGGLE.format("vggish"),
        "https://storage.googleapis.com/audioset/vggish_model.ckpt",
    ),
    YAMNET: (_KAGGLE.format("yamnet"),),
}


def resolve(source: str, on_progress: Progress = ignore) -> str:
    """Download a module unless it is cached, and return its path.

    If the address fails, its `ALTERNATIVES` are tried, and the failures are logged.

    Args:
        source: An address, or a path, which is returned unchanged.
        on_progress: Called as bytes arrive.

    Raises:
        OSError: If every address fails.
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
        # Network, archive and disk errors have no common type.
        except Exception as error:
            failures.append(f"{address}: {first_line(error)}")
            continue
        if failures:
            _LOGGER.warning("Downloaded %s. Failed: %s", address, "; ".join(failures))
        return path
    raise OSError("; ".join(failures))


def cached(address: str) -> pathlib.Path | None:
    """Return the path of an address's complete download, or None."""
    path = _cache_path(address)
    exists = path.is_file() if _is_file(address) else path.is_dir()
    return path if exists and (path.is_file() or any(path.iterdir())) else None


def _cache_path(address: str) -> pathlib.Path:
    """Return the path in the cache for an address."""
    if _is_file(address):
        return keras_cache() / "models" / os.path.basename(address)
    # TensorFlow Hub's own naming scheme.
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
        return str(download(address, _cache_path(address), on_progress))
    # TensorFlow Hub's servers need this parameter to send an archive.
    query = "&" if "?" in address else "?"
    archive = f"{address}{query}tf-hub-format=compressed"
    return str(download_module(archive, _cache_path(address), on_progress))


def _is_file(address: str) -> bool:
    return address.endswith(".ckpt")


def tensorflow_hub() -> ModuleType:
    """Import TensorFlow Hub on demand, because the import takes half a second."""
    with _replaced_pkg_resources():
        import tensorflow_hub
        import tensorflow_hub.resolver

    return tensorflow_hub


@contextmanager
def _replaced_pkg_resources() -> Iterator[None]:
    """Provide the one function of pkg_resources that tensorflow_hub 0.16.1 imports.

    Setuptools 82 lacks pkg_resources, and earlier versions warn on its import.
    """
    name = "pkg_resources"
    if name in sys.modules:
        yield
        return
    # packaging is installed, because TensorFlow depends on it.
    from packaging.version import parse

    sys.modules[name] = ModuleType(name)
    sys.modules[name].parse_version = parse
    try:
        yield
    finally:
        del sys.modules[name]
