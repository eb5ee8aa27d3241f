"""The configs: what each reads, and the shapes of its examples."""

import dataclasses
import pathlib

import tensorflow_datasets as tfds

BACKGROUND = "Background"
SEGMENT_S = 1.0
SPLITS = ("train", "validation", "test")

# Disclaimers of results on such data.
SIMULATED = "Simulated data (tfds_ave/synthetic): not AVE results"
STAND_IN = (
    "Stand-in features (audio below zero, which AVE's released features never are): "
    "not AVE results"
)

_LINES = pathlib.Path(__file__).with_name("categories.txt").read_text("utf-8")
AVE_CATEGORIES = tuple(n for n in _LINES.splitlines() if not n.startswith("#"))


@dataclasses.dataclass(eq=False, kw_only=True)
class AveConfig(tfds.core.BuilderConfig):
    """What a config reads, and the shapes of its examples.

    Attributes:
        categories: Names of the event categories, without background.
        num_segments: Number of segments of a clip, `SEGMENT_S` each.
        audio_width: Width of an audio feature.
        visual_shape: Shape of a segment's visual feature.
        visual_dtype: dtype that visual features are stored in.
        source: `"simulated"`, `"files"` (features in AVE's layout), `"videos"` (AVE's),
            or `"custom"`, where the user's data decide categories and shapes.
        visual_file: AVE's file of visual features, for source `"files"`.
        visual_network: A name of `features.visual.RECIPES`, if the config fixes it.
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
        """AVE's file of visual features of the background clips."""
        return self.visual_file.replace(".h5", "_noisy.h5")

    @property
    def backbones(self) -> dict[str, str | None]:
        """What made the features, as far as the config fixes it."""
        # AVE's audio features are VGGish's.
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
        "SIMULATED features and labels in AVE's shapes; downloads nothing. For trying "
        "out programs: no figure on it is an AVE result."
    ),
)
RESNET152 = AveConfig(
    name="resnet152",
    description=(
        "AVE with VGGish audio and pooled ResNet-152 visual features (2048 a segment). "
        "The visual files were never released: put them into the manual folder."
    ),
    visual_file="visual_feature_vec.h5",
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
    visual_network="vgg19",
)
RESNET152_MAPS = AveConfig(
    name="resnet152_maps",
    description=(
        "AVE with VGGish audio and ResNet-152 feature maps before pooling (7 x 7 x "
        "2048 a segment), stored as float16. The visual files were never released: put "
        "them into the manual folder."
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
        "one frame a second, as AVSDN uses them."
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
        "Visual features are stored flat; the metadata hold their shape."
    ),
    source="custom",
    categories=(),
)

# All configs; the first is the default.
CONFIGS = (SYNTHETIC, RESNET152, VGG19, RESNET152_MAPS, VIDEOS, CUSTOM)
