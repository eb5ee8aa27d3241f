"""List the backbones' downloads, check which are cached, and fetch the others."""

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterable

import keras

from avsdn_tf.backbones import VGGISH, YAMNET, Backbones
from avsdn_tf.errors import first_line
from avsdn_tf.features import sources
from avsdn_tf.features.transfer import Progress, download, ignore
from avsdn_tf.features.visual import recipe_of

_KERAS_WEIGHTS = "https://storage.googleapis.com/tensorflow/keras-applications/"


@dataclasses.dataclass(frozen=True)
class Download:
    """A network that the commands download on first use.

    Attributes:
        name: Name in `avsdn fetch`.
        needed_by: Commands that need the network.
        addresses: URLs to try in this order.
        find: Returns the path in the cache, or None.
        fetch: Downloads the network and reports progress.
    """

    name: str
    needed_by: str
    addresses: tuple[str, ...]
    find: Callable[[], pathlib.Path | None]
    fetch: Callable[[Progress], object]


@dataclasses.dataclass(frozen=True)
class State:
    """State of a download: path in the cache, size, and error message."""

    path: pathlib.Path | None
    num_bytes: int = 0
    failure: str | None = None


def _module(name: str, needed_by: str, address: str) -> Download:
    addresses = (address, *sources.ALTERNATIVES[address])
    return Download(
        name,
        needed_by,
        addresses,
        find=lambda: next(filter(None, map(sources.cached, addresses)), None),
        fetch=lambda on_progress: sources.resolve(address, on_progress),
    )


def _keras(name: str, needed_by: str, address: str) -> Download:
    address = f"{_KERAS_WEIGHTS}{address}"
    path = sources.keras_cache() / "models" / address.rpartition("/")[2]

    def fetch(on_progress: Progress) -> keras.Model:
        download(address, path, on_progress)
        # Building the network makes Keras verify the file's checksum.
        recipe = recipe_of(name)
        return recipe.network(
            include_top=recipe.include_top,
            weights="imagenet",
            pooling=recipe.pooling,
            input_shape=(recipe.size, recipe.size, 3),
        )

    return Download(
        name,
        needed_by,
        (address,),
        find=lambda: path if path.is_file() else None,
        fetch=fetch,
    )


def downloads() -> list[Download]:
    """Return all downloads of the default backbones."""
    zero_shot, trained = "predict --zero_shot", "extract, predict --run"
    kernels = "weights_tf_dim_ordering_tf_kernels_notop.h5"
    return [
        _module("yamnet", zero_shot, YAMNET),
        _keras(
            "EfficientNetV2B0_classes",
            zero_shot,
            "efficientnet_v2/efficientnetv2-b0.h5",
        ),
        _module("vggish", trained, VGGISH),
        _keras("resnet152", trained, f"resnet/resnet152_{kernels}"),
        _keras("vgg19", f"{trained} (maps)", f"vgg19/vgg19_{kernels}"),
    ]


def find_missing(backbones: Backbones, modalities: Iterable[str]) -> list[str]:
    """Return the names of downloads that the modalities need and the caches lack."""
    names = []
    for modality in modalities:
        weights = getattr(backbones, f"{modality}_weights")
        if weights == backbones.known_source(modality):
            names.append(getattr(backbones, f"{modality}_network"))
    # The suffix selects an output of a network; all outputs share the weights.
    files = {name.removesuffix("_scores").removesuffix("_maps") for name in names}
    return [each.name for each in downloads() if each.name in files and not each.find()]


def look(network: Download) -> State:
    """Return the state of a download."""
    path = network.find()
    if path is None:
        return State(None)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return State(path, sum(file.stat().st_size for file in files))


def fetch(network: Download, on_progress: Progress = ignore) -> State:
    """Download a network unless it is cached; return its state, with any error."""
    if network.find() is None:
        try:
            network.fetch(on_progress)
        # Network, archive and disk errors have no common type.
        except Exception as error:
            logging.getLogger(__name__).debug("%s", network.name, exc_info=error)
            return State(None, failure=first_line(error))
    return look(network)
