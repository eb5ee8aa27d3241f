"""The registry of configs: what each one reads, and the shapes of its examples."""

import dataclasses
import pathlib

import tensorflow_datasets as tfds

BACKGROUND = "Background"
SEGMENT_S = 1.0

# What results on such data must say.
SIMULATED = "Simulated data (tfds_ave/synthetic): not AVE results"
STAND_IN = (
    "Stand-in features (audio below zero, which AVE's released features never are): "
    "not AVE results"
)

AVE_CATEGORIES = tuple(
    line
    for line in (pathlib.Path(__file__).parent / "categories.txt")
    .read_text(encoding="utf-8")
    .splitlines()
    if not line.startswith("#")
)


@dataclasses.dataclass(eq=False, kw_only=True)
class AveConfig(tfds.core.BuilderConfig):
    """What a config reads, and the shapes of its examples.

    Attributes:
        categories: Names of the event categories, without background.
        num_segments: Segments a clip, of one second each.
        audio_width: Width of an audio feature.
        visual_shape: Shape of a segment's visual feature.
        visual_dtype: NumPy name of the type that visual features are stored as.
        source: `"simulated"`, `"files"` of features in AVE's layout, AVE's `"videos"`,
            or `"custom"`: anyone's own data, which decides categories and shapes.
        visual_file: Official file of the visual features, where they are read from it.
        visual_noisy_file: The same for the background clips.
        visual_network: Network of the visual features, by its name in
            `avsdn_tf.features.visual.RECIPES`, where the config fixes it.
    """

    categories: tuple[str, ...] = AVE_CATEGORIES
    num_segments: int = 10
    audio_width: int = 128
    visual_shape: tuple[int, ...] = (2048,)
    visual_dtype: str = "float32"
    source: str = "files"
    visual_file: str = ""
    visual_noisy_file: str = ""
    visual_network: str | None = None

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
        "SIMULATED features and labels in AVE's shapes, made on the spot: nothing to "
        "download. For trying out programs; no figure on it is an AVE result."
    ),
)
RESNET152 = AveConfig(
    name="resnet152",
    description=(
        "AVE with VGGish audio and pooled ResNet-152 visual features (2048 a segment). "
        "The visual files were never released: they come from the manual folder."
    ),
    visual_file="visual_feature_vec.h5",
    visual_noisy_file="visual_feature_vec_noisy.h5",
    visual_network="resnet152",
)
VGG19 = AveConfig(
    name="vgg19",
    description=(
        "AVE with VGGish audio and VGG-19 block5_pool feature maps (7 x 7 x 512 a "
        "segment), the features of Tian et al., stored as float16."
    ),
    visual_shape=(7, 7, 512),
    visual_dtype="float16",
    visual_file="visual_feature.h5",
    visual_noisy_file="visual_feature_noisy.h5",
    visual_network="vgg19",
)

RESNET152_MAPS = AveConfig(
    name="resnet152_maps",
    description=(
        "AVE with VGGish audio and ResNet-152 feature maps before pooling (7 x 7 x "
        "2048 a segment), stored as float16. Nobody released such files: they come "
        "from the manual folder."
    ),
    visual_shape=(7, 7, 2048),
    visual_dtype="float16",
    visual_file="visual_feature_resnet152.h5",
    visual_noisy_file="visual_feature_resnet152_noisy.h5",
    visual_network="resnet152_maps",
)

VIDEOS = AveConfig(
    name="videos",
    description=(
        "AVE made from its videos: VGGish audio and pooled ResNet-152 visual features, "
        "one frame a second, as AVSDN's."
    ),
    source="videos",
    visual_network="resnet152",
)
CUSTOM = AveConfig(
    name="custom",
    description=(
        "Your own data: manifest.csv and categories.txt, with videos or feature files. "
        "The metadata tell the shape of the visual features, which are stored flat."
    ),
    source="custom",
    categories=(),
)

# Every config there is; the first is the default.
CONFIGS = (SYNTHETIC, RESNET152, VGG19, RESNET152_MAPS, VIDEOS, CUSTOM)
