"""What is checked before TensorFlow starts, which takes seconds."""

import argparse
import os
import pathlib

from avsdn_tf.cli.flags import did_you_mean
from avsdn_tf.errors import UserError
from avsdn_tf.files import expand_user
from avsdn_tf.startup import start_tensorflow
from avsdn_tf.training.config import Config

# A test compares them with the registries, whose import takes TensorFlow.
AUDIO_NETWORKS = ("vggish", "yamnet", "yamnet_scores")
VISUAL_NETWORKS = ("resnet152", "resnet152_maps", "vgg19")
DATASETS = ("synthetic", "resnet152", "vgg19", "resnet152_maps", "videos", "custom")


def start(args: argparse.Namespace) -> None:
    """Check the files and the data set that a command names, and start TensorFlow.

    Raises:
        UserError: If one is missing; the message is there within a second.
    """
    _check_networks(args)
    config = getattr(args, "config", None)
    if config is not None:
        _check_dataset(config.dataset, config.data_dir)
        if config.encoders is not None:
            _check_run(config.encoders, "encoders")
    elif getattr(args, "run", None) is not None:
        _check_run(args.run, "run")
    if getattr(args, "videos", ()):
        # An optional dependency: reading videos needs the extra `video`.
        from avsdn_tf.features.video import find_videos

        find_videos(args.videos)
    _check_backbones(args)
    _check_out(args, "run" if config is not None else "out")
    start_tensorflow()


def _check_run(path: str, field: str) -> None:
    from avsdn_tf.run_folder import RunFolder

    if "://" in path:
        return  # A shared run, which is downloaded later.
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
    # An address is left to TFDS.
    data_dir = find_data_dir(data_dir)
    folder = os.path.join(data_dir, package, config)
    is_simulated = config in ("", DATASETS[0])
    if not (is_simulated or "://" in data_dir or os.path.isdir(folder)):
        raise UserError(
            f"Not built in {folder}. Build it first:\n  avsdn build "
            f"--config={config} --manual_dir=FOLDER",
            field="dataset",
            value=name,
        )


def find_data_dir(data_dir: str | None) -> str:
    """Return the folder of data sets that was given, or TFDS's own default."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return expand_user(data_dir or default)


def _check_networks(args: argparse.Namespace) -> None:
    """Check the names of backbones.

    Names of keras.applications, which begin with a capital, are checked later.
    """
    for field, known in (
        ("audio_network", AUDIO_NETWORKS),
        ("visual_network", VISUAL_NETWORKS),
    ):
        name = getattr(args, field, None)
        if name and "/" not in name and name not in known and not name[0].isupper():
            message = f"Expected one of {', '.join(known)}, or as its help says."
            message += did_you_mean(name, known)
            raise UserError(message, field=field, value=name)


def _check_backbones(args: argparse.Namespace) -> None:
    """Check the paths of backbones and of their weights."""
    paths = ("audio_weights", "vggish")
    for name in (*paths, "audio_network", "visual_network", "visual_weights"):
        value = getattr(args, name, None)
        # Of the others, what has neither slash nor suffix may be a name.
        is_path = value and (
            name in paths or "/" in value or pathlib.Path(value).suffix
        )
        if is_path and "://" not in value and not _exists(value):
            message = "No such file or folder."
            raise UserError(message, field=name, value=value)


def _exists(path: str) -> bool:
    """Return whether there is a file, a folder, or a checkpoint of several files."""
    return os.path.exists(path) or os.path.exists(f"{path}.index")


def _check_out(args: argparse.Namespace, field: str) -> None:
    """Check that the folder to write is none yet, or is a folder."""
    out = getattr(args, field, None)
    path = pathlib.Path(out) if out else None
    if path is None or os.path.isdir(path):
        return
    if "://" in out:
        message = "Expected a folder on this machine. `avsdn push` shares a run."
        raise UserError(message, field=field, value=out)
    exists = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    if not os.path.isdir(exists):
        message = f"{exists} is no folder. Expected a folder to write, or a new one."
        raise UserError(message, field=field, value=out)
