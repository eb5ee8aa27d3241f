"""Define the flags that commands share; convert and check the values of flags."""

import argparse
import dataclasses
import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from avsdn_tf import backbones
from avsdn_tf.errors import UserError
from avsdn_tf.files import expand_user
from avsdn_tf.startup import quiet_startup, start_tensorflow
from avsdn_tf.training.config import CROSS_MODAL, Config

PATH = expand_user


BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "1"), True),
    **dict.fromkeys(("false", "f", "no", "0"), False),
}


def boolean(text: str) -> bool:
    """Return the boolean of a word such as true or no."""
    if text.lower() not in BOOLEANS:
        raise ValueError(text)
    return BOOLEANS[text.lower()]


def positive(text: str) -> int:
    """Return a positive integer."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def share(text: str) -> float:
    """Return a number from 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise ValueError(text)
    return float(text)


_EXPECTED = {
    boolean: "true or false",
    float: "a number",
    int: "an integer",
    positive: "a positive integer",
    share: "a number from 0 to 1",
}
_METAVARS = {
    boolean: "true|false",
    float: "X",
    int: "N",
    positive: "N",
    share: "X",
    PATH: "PATH",
}


@dataclasses.dataclass(frozen=True)
class Registry:
    """Names of a registry whose entries have a `summary`.

    Importing the registry's module takes seconds, so only the full help imports it.
    `names` copies the registry's names, so that a wrong name is refused at once; a
    test compares the copy with the registry.
    """

    module: str
    name: str
    names: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __str__(self) -> str:
        """Return a line for each name."""
        entries = self.entries().items()
        return "\n".join(f"{name}: {entry.summary}." for name, entry in entries)

    def entries(self) -> dict[str, Any]:
        """Import the registry and return it."""
        start_tensorflow()
        with quiet_startup():
            return getattr(importlib.import_module(self.module), self.name)


MODELS = Registry(
    "avsdn_tf.models.registry",
    "MODELS",
    (
        "avsdn",
        "avsdn_init_visual",
        "avsdn_init_audio",
        "avsdn_label_guided",
        "avel_audio",
        "avel_visual",
        "avel",
        "avel_att",
        "dmrn",
        "cmran",
        "psp",
        "cpsp",
        "cmbs",
        "cace",
        "avdln",
    ),
)
FORMATS = Registry(
    "avsdn_tf.export", "FORMATS", ("savedmodel", "onnx", "litert", "keras")
)


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag; argparse calls it to convert the flag's text.

    Attributes:
        name: Name without dashes.
        text: Help text; the default is appended.
        kind: Converts the text: `str`, `int`, `float`, `PATH`, `boolean`, `positive` or
            `share`.
        default: Value if the flag is not given.
        choices: The accepted values; empty for all.
        shown_default: The default that the help shows; None to show `default`.
        metavar: Name of the value in the help; None for the name that fits `kind`.
        is_rare: Whether only `--helpfull` explains the flag.
    """

    name: str
    text: str
    kind: Callable[[str], Any] = str
    default: Any = None
    choices: Iterable[str] = ()
    shown_default: Any = None
    metavar: str | None = None
    is_rare: bool = False

    def add_to(self, group: argparse._ActionsContainer) -> None:
        """Define the flag in a parser, or in a group of it."""
        metavar = self.metavar or _METAVARS.get(self.kind, "NAME")
        options: dict[str, Any] = {"metavar": metavar}
        if self.kind is boolean:
            options |= {"nargs": "?", "const": True}
            group.add_argument(
                *(f"--no{self.name}", f"--no-{self.name}"),
                dest=self.name,
                action="store_false",
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )
        elif self.choices and not self.metavar:
            options["metavar"] = "|".join(self.choices)
        options |= {"type": self, "default": self.default, "help": self.text}
        group.add_argument(f"--{self.name}", **options)

    def __call__(self, text: str) -> Any:
        """Convert a text; raise UserError, because argparse rewords other errors."""
        if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
            message = "Expected a name in UTF-8, which TensorFlow needs."
            raise UserError(message, field=self.name, value=text)
        if self.kind is PATH and not text:
            # pathlib reads an empty path, often an unset shell variable, as `.`.
            raise UserError(f"--{self.name}: expected a path. Received nothing.")
        try:
            value = self.kind(text)
        except ValueError as error:
            message = f"Expected {_EXPECTED[self.kind]}."
            raise UserError(message, field=self.name, value=text) from error
        choices = tuple(self.choices)
        if choices and value not in choices:
            message = f"Expected one of {', '.join(choices)}."
            message += did_you_mean(text, choices)
            raise UserError(message, field=self.name, value=text)
        return value

    @property
    def invocation(self) -> str | None:
        """The flag as the help shows it; None for argparse's form."""
        if self.kind is not boolean:
            return None
        return f"--{'[no]' if self._shown_default is True else ''}{self.name}"

    @property
    def _shown_default(self) -> Any:
        is_shown = self.shown_default is not None or self.default is argparse.SUPPRESS
        return self.shown_default if is_shown else self.default

    def help(self, full: bool) -> str:
        """Return the text with the default; if `full`, with a registry's summaries."""
        text, default = self.text.removesuffix("."), self._shown_default
        is_registry = isinstance(self.choices, Registry)
        if is_registry and self.metavar and not full:
            text += f": {', '.join(self.choices)}"
        # A boolean flag that is not given is false.
        if not (default is None or default is False or default == ""):
            text += f" [{'true' if default is True else default}]"
        return f"{text}:\n{self.choices}" if is_registry and full else f"{text}."


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a sentence that suggests the known word most similar to a wrong one."""
    known = [*known]
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word, known, n=1) or [
        lower[name] for name in difflib.get_close_matches(word.lower(), lower, n=1)
    ]
    return f" Did you mean {prefix}{close[0]}?" if close else ""


def _from_config(field: dataclasses.Field[Any]) -> Flag:
    """Return the flag of a setting. If not given, it is absent from the arguments."""
    metadata = field.metadata
    kind = {bool: boolean, int: int, float: float}.get(metadata["kind"], str)
    metavar = {"model": "NAME", "decay_epochs": "N,N,..."}.get(field.name)
    if field.name in ("data_dir", "encoders"):
        kind, metavar = PATH, "DIR"
    shown_default = field.default
    if CROSS_MODAL in metadata:
        shown_default = f"{metadata['default']}; cross_modal: {metadata[CROSS_MODAL]}"
    return Flag(
        field.name,
        metadata["help"],
        kind,
        default=argparse.SUPPRESS,
        choices=MODELS if field.name == "model" else metadata["choices"],
        shown_default=shown_default,
        metavar=metavar,
        is_rare=field.name not in _COMMON,
    )


# The settings that `avsdn train --help` shows.
_COMMON = (
    *("mode", "model", "dataset", "data_dir", "weak_label", "epochs", "patience"),
    *("batch_size", "learning_rate", "dropout", "seed", "precision"),
)
SETTINGS = tuple(map(_from_config, dataclasses.fields(Config)))
RUN = Flag("run", "Folder of a finished run.", PATH, metavar="DIR")
OUT = Flag("out", "Output folder.", PATH, metavar="DIR")
DATA_DIR = Flag(
    "data_dir",
    "TFDS's folder of data sets, if it has moved since training.",
    PATH,
    metavar="DIR",
)
EMPTY = Flag(
    "empty",
    "A modality that videos may lack; its features are zeros.",
    choices=("audio", "visual"),
)
AUDIO_NETWORK = Flag(
    "audio_network",
    "Audio backbone: vggish, yamnet, yamnet_scores, or the URL or folder of a module.",
    shown_default="vggish",
)
AUDIO_WEIGHTS = Flag(
    "audio_weights", "Module of the audio backbone, or VGGish's checkpoint.", PATH
)
VGGISH = Flag("vggish", "Short for --audio_network=vggish --audio_weights=PATH.", PATH)
VISUAL_NETWORK = Flag(
    "visual_network",
    "Visual backbone: resnet152, resnet152_maps, vgg19, a network of "
    "keras.applications, or the URL or folder of a module.",
    shown_default="resnet152",
)
VISUAL_WEIGHTS = Flag(
    "visual_weights",
    "Weights file of keras.applications.",
    PATH,
    shown_default=f"{backbones.IMAGENET}, downloaded",
)
VISUAL_PRECISION = Flag(
    "visual_precision",
    "Precision of the visual backbone; bfloat16 is faster on some processors.",
    choices=("float32", "mixed_bfloat16"),
    shown_default="float32",
)
BACKBONES = (
    *(AUDIO_NETWORK, AUDIO_WEIGHTS, VGGISH),
    *(VISUAL_NETWORK, VISUAL_WEIGHTS, VISUAL_PRECISION),
)


def given(args: argparse.Namespace, wanted: Iterable[Flag]) -> dict[str, Any]:
    """Return the values of the flags that were given. No flag may have a default."""
    values = {flag.name: getattr(args, flag.name, None) for flag in wanted}
    return {name: value for name, value in values.items() if value is not None}


def refuse(args: argparse.Namespace, unread: Iterable[Flag], command: str) -> None:
    """Raise UserError if a flag was given that the command ignores."""
    if ignored := [f"--{name}" for name in given(args, unread)]:
        raise UserError(f"{command} does not read {', '.join(ignored)}.")


def require_run(args: argparse.Namespace, more: str = "") -> None:
    """Raise UserError if --run was not given."""
    if args.run is None:
        message = f"expected --run=DIR, the folder of a finished run{more}."
        raise UserError(f"{args.command}: {message}")
