"""Define the configs: their source files and the shapes of their examples."""

import dataclasses
import pathlib

import tensorflow_datasets as tfds

BACKGROUND = "Background"
SEGMENT_S = 1.0
SPLITS = ("train", "validation", "test")

# Disclaimers for results on data that are not AVE.
SIMULATED = "Simulated data (tfds_ave/synthetic): not AVE results"
STAND_IN = (
    "Stand-in features (audio below zero, which AVE's released features never are): "
    "not AVE results"
)

_LINES = pathlib.Path(__file__).with_name("categories.txt").read_text("utf-8")
AVE_CATEGORIES = tuple(n for n in _LINES.splitlines() if not n.startswith("#"))


@dataclasses.dataclass(eq=False, kw_only=True)
class AveConfig(tfds.core.BuilderConfig):
    """A config of the builder.

    Attributes:
        categories: Names of the event categories, without background.
        num_segments: Number of segments of a clip, `SEGMENT_S` each.
        audio_width: Width of an audio feature.
        visual_shape: Shape of a segment's visual feature.
        visual_dtype: Stored dtype of visual features.
        source: `"simulated"`, `"files"` (features in AVE's layout), `"videos"` (AVE's
            videos) or `"custom"` (the user's data, with their categories and shapes).
        visual_file: Name of the file of visual features, for source `"files"`.
        visual_network: A name in `features.visual.RECIPES`, or None for any network.
    """

    categories: tuple[str, ...] = AVE_CATEGORIES
    num_segments: int = 10
    audio_width: int = 128
    visual_shape: tuple[int, ...] = (2048,)
    visual_dtype: str = "float32"
    source: str = "files"
    visual_file: str = ""
    visual_network: str | None = None

    @property
    def visual_noisy_file(self) -> str:
        """Name of the file of the background clips' visual features."""
        return self.visual_file.replace(".h5", "_noisy.h5")

    @property
    def backbones(self) -> dict[str, str | None]:
        """The networks of the features, None if the config doesn't fix them."""
        audio_network = "vggish" if self.visual_network else None
        return {"audio_network": audio_network, "visual_network": self.visual_network}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The categories, then background."""
        return (*self.categories, BACKGROUND)

    @property
    def background(self) -> int:
        """Index of the background class."""
        return len(self.categories)


SYNTHETIC = AveConfig(
    name="synthetic",
    source="simulated",
    description=(
        "SIMULATED features and labels in AVE's shapes, without downloads, for trying "
        "out programs. Results on it are not AVE results."
    ),
)
RESNET152 = AveConfig(
    name="resnet152",
    description=(
        "AVE with VGGish audio and pooled ResNet-152 visual features (2048 per "
        "segment). The visual files were never released: extract them yourself, and "
        "put them into the manual folder."
    ),
    visual_file="visual_feature_vec.h5",
    visual_network="resnet152",
)
VGG19 = AveConfig(
    name="vgg19",
    description=(
        "AVE with VGGish audio and VGG-19 block5_pool feature maps (7 x 7 x 512 per "
        "segment), the features of Tian et al., stored as float16."
    ),
    visual_shape=(7, 7, 512),
    visual_dtype="float16",
    visual_file="visual_feature.h5",
    visual_network="vgg19",
)
RESNET152_MAPS = AveConfig(
    name="resnet152_maps",
    description=(
        "AVE with VGGish audio and ResNet-152 feature maps before pooling (7 x 7 x "
        "2048 per segment), stored as float16. The visual files were never released: "
        "extract them yourself, and put them into the manual folder."
    ),
    visual_shape=(7, 7, 2048),
    visual_dtype="float16",
    visual_file="visual_feature_resnet152.h5",
    visual_network="resnet152_maps",
)
VIDEOS = AveConfig(
    name="videos",
    description=(
        "AVE from its videos: VGGish audio and pooled ResNet-152 visual features of "
        "one frame per second, as in AVSDN."
    ),
    source="videos",
    visual_network="resnet152",
)
CUSTOM = AveConfig(
    name="custom",
    version="1.3.0",
    release_notes={
        "1.3.0": "Clips of any length, windows, and several categories at once."
    },
    description=(
        "Your own data: manifest.csv and categories.txt, with videos or feature files. "
        "Visual features are stored flat, and their shape is in the metadata."
    ),
    source="custom",
    categories=(),
)

# All configs; the first is the default.
CONFIGS = (SYNTHETIC, RESNET152, VGG19, RESNET152_MAPS, VIDEOS, CUSTOM)
