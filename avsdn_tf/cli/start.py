"""Check a command's arguments before the start of TensorFlow, which takes seconds."""

import argparse
import os
import pathlib

from avsdn_tf.cli.flags import did_you_mean
from avsdn_tf.errors import UserError
from avsdn_tf.files import expand_user
from avsdn_tf.startup import start_tensorflow
from avsdn_tf.training.config import Config

# Names from modules that import TensorFlow. A test compares these copies with them.
AUDIO_NETWORKS = ("vggish", "yamnet", "yamnet_scores")
VISUAL_NETWORKS = ("resnet152", "resnet152_maps", "vgg19")
KERAS_NETWORKS = (
    *("ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtTiny"),
    *("ConvNeXtXLarge", "DenseNet121", "DenseNet169", "DenseNet201"),
    *("EfficientNetB0", "EfficientNetB1", "EfficientNetB2", "EfficientNetB3"),
    *("EfficientNetB4", "EfficientNetB5", "EfficientNetB6", "EfficientNetB7"),
    *("EfficientNetV2B0", "EfficientNetV2B1", "EfficientNetV2B2"),
    *("EfficientNetV2B3", "EfficientNetV2L", "EfficientNetV2M"),
    *("EfficientNetV2S", "InceptionResNetV2", "InceptionV3", "MobileNet"),
    *("MobileNetV2", "MobileNetV3Large", "MobileNetV3Small", "NASNetLarge"),
    *("NASNetMobile", "ResNet101", "ResNet101V2", "ResNet152", "ResNet152V2"),
    *("ResNet50", "ResNet50V2", "VGG16", "VGG19", "Xception"),
)
# Suffixes of network names: `_maps` for feature maps before pooling, `_classes` for
# class probabilities.
_KINDS = ("_maps", "_classes")
DATASETS = ("synthetic", "resnet152", "vgg19", "resnet152_maps", "videos", "custom")


def start(args: argparse.Namespace) -> None:
    """Check the files and the data set of a command, and start TensorFlow.

    Raises:
        UserError: If a file, a folder or the data set is missing.
    """
    _check_networks(args)
    config = getattr(args, "config", None)
    if config is not None:
        check_run_folder(args)
        _check_dataset(config.dataset, config.data_dir)
        if config.encoders is not None:
            _check_run(config.encoders, "encoders")
    elif getattr(args, "run", None) is not None:
        _check_run(args.run, "run")
        data_dir = getattr(args, "data_dir", None)
        if data_dir and "://" not in data_dir and not os.path.isdir(data_dir):
            message = "No such folder. Expected TFDS's folder of data sets."
            raise UserError(message, field="data_dir", value=data_dir)
    if getattr(args, "videos", ()):
        # Import here: reading videos needs packages of the optional extra `video`.
        from avsdn_tf.features.video import find_videos

        find_videos(args.videos)
    _check_backbones(args)
    check_out(args, "out")
    start_tensorflow()


def check_run_folder(args: argparse.Namespace) -> None:
    """Check that a training can begin or resume in the folder `args.run`.

    Raises:
        UserError: If no training can begin or resume in the folder.
    """
    from avsdn_tf.run_folder import RunFolder

    check_out(args, "run")
    # Don't check in workers: the chief may have written to their shared folder.
    if args.run and "TF_CONFIG" not in os.environ:
        RunFolder(args.run).check_startable(args.resume)


def _check_run(path: str, field: str) -> None:
    from avsdn_tf.run_folder import RunFolder

    if "://" in path:
        return  # A shared run is downloaded later.
    folder = RunFolder(path)
    if not os.path.exists(folder.path):
        message = "No such folder. Expected the folder of a finished run."
        raise UserError(message, field=field, value=path)
    folder.check_ended(field)
    Config.from_dict(folder.read_settings(), folder.config)


def _check_dataset(name: str, data_dir: str | None) -> None:
    package, _, config = name.partition("/")
    config = config.partition(":")[0]
    if package != "tfds_ave" or (config and config not in DATASETS):
        message = f"Expected tfds_ave/CONFIG, with a config of {', '.join(DATASETS)}."
        message += did_you_mean(config or package, DATASETS, "tfds_ave/")
        raise UserError(message, field="dataset", value=name)
    data_dir = find_data_dir(data_dir)
    if os.path.exists(data_dir) and not os.path.isdir(data_dir):
        message = "Not a folder. Expected TFDS's folder of data sets."
        raise UserError(message, field="data_dir", value=data_dir)
    folder = os.path.join(data_dir, package, config)
    # URLs can't be checked here: TFDS opens them.
    is_simulated = config in ("", DATASETS[0])
    if not (is_simulated or "://" in data_dir or os.path.isdir(folder)):
        raise UserError(
            f"No data set in {folder}. Build it first:\n  avsdn build "
            f"{config} --manual_dir=FOLDER",
            field="dataset",
            value=name,
        )


def find_data_dir(data_dir: str | None) -> str:
    """Return the given folder of data sets, or TFDS's default."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return expand_user(data_dir or default)


def _check_networks(args: argparse.Namespace) -> None:
    """Check the names of backbones."""
    kinds = ("", *_KINDS)
    of_keras = tuple(f"{name}{kind}" for name in KERAS_NETWORKS for kind in kinds)
    for field, known, others in (
        ("audio_network", AUDIO_NETWORKS, ()),
        ("visual_network", VISUAL_NETWORKS, of_keras),
    ):
        name = getattr(args, field, None)
        if name and "/" not in name and name not in (*known, *others):
            more = ", a network of keras.applications such as EfficientNetV2B0"
            raise UserError(
                f"Expected one of {', '.join(known)}{more if others else ''}, or the "
                "URL or folder of a module." + did_you_mean(name, (*known, *others)),
                field=field,
                value=name,
            )


def _check_backbones(args: argparse.Namespace) -> None:
    """Check that local backbones and weights exist."""
    paths = ("audio_weights", "vggish")
    for name in (*paths, "audio_network", "visual_network", "visual_weights"):
        value = getattr(args, name, None)
        # The other flags also accept names, which have neither a slash nor a suffix.
        is_path = value and (
            name in paths or "/" in value or pathlib.Path(value).suffix
        )
        if is_path and "://" not in value and not _exists(value):
            message = "No such file or folder."
            raise UserError(message, field=name, value=value)


def _exists(path: str) -> bool:
    """Return whether the path is a file, a folder, or a checkpoint of several files."""
    return os.path.exists(path) or os.path.exists(f"{path}.index")


def check_out(args: argparse.Namespace, field: str) -> None:
    """Check that an output path is a folder, or that a folder can be created there.

    Raises:
        UserError: If the path is a file, is below a file, or is a URL.
    """
    out = getattr(args, field, None)
    path = pathlib.Path(out) if out else None
    if path is None or os.path.isdir(path):
        return
    if "://" in out:
        message = "Expected a folder on this machine. `avsdn push` shares a run."
        raise UserError(message, field=field, value=out)
    exists = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    if not os.path.isdir(exists):
        message = f"{exists} is not a folder. Expected the path of a folder."
        raise UserError(message, field=field, value=out)
