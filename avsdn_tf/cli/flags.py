"""Flags: how their text becomes a value, and those that several commands have."""

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
from avsdn_tf.training.config import Config

PATH = expand_user


BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "1"), True),
    **dict.fromkeys(("false", "f", "no", "0"), False),
}


def boolean(text: str) -> bool:
    """Return the truth value of a word such as true or no."""
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
    """The names of a registry whose entries have a `summary`.

    Its module imports TensorFlow, which takes seconds: it is imported for the help
    alone. A test compares `names` with it, so that a wrong name is told at once.
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
        name: Its name, without dashes.
        text: Its help; the default is appended.
        kind: Converts the text: `str`, `int`, `float`, `PATH`, `boolean`, `positive` or
            `share`.
        default: Its value if it is not given.
        choices: The values that it takes; empty for all.
        shown_default: The default that its help shows; None for `default`.
    """

    name: str
    text: str
    kind: Callable[[str], Any] = str
    default: Any = None
    choices: Iterable[str] = ()
    shown_default: Any = None

    def add_to(self, group: argparse._ActionsContainer) -> None:
        """Define the flag in a parser, or in a group of it."""
        options: dict[str, Any] = {"metavar": _METAVARS.get(self.kind, "NAME")}
        if self.kind is boolean:
            options |= {"nargs": "?", "const": True}
            group.add_argument(
                *(f"--no{self.name}", f"--no-{self.name}"),
                dest=self.name,
                action="store_false",
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )
        elif self.choices and not isinstance(self.choices, Registry):
            options["metavar"] = "|".join(self.choices)
        options |= {"type": self, "default": self.default, "help": self.text}
        group.add_argument(f"--{self.name}", **options)

    def __call__(self, text: str) -> Any:
        """Return the value of a text. argparse would reword errors but UserError."""
        if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
            message = "Expected a name in UTF-8, which TensorFlow needs."
            raise UserError(message, field=self.name, value=text)
        if self.kind is PATH and not text:
            # Of a shell's variable that is not set. pathlib takes it for `.`.
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

    def help(self) -> str:
        """Return the help, with the default and the names of a registry."""
        text, default = self.text, self.shown_default
        if default is None and self.default is not argparse.SUPPRESS:
            default = self.default
        if default is not None:
            shown = {True: f"true; --no{self.name} turns it off", False: "false"}
            is_boolean = self.kind is boolean
            text += f" Default: {shown[default] if is_boolean else default}."
        return f"{text}\n{self.choices}" if isinstance(self.choices, Registry) else text


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Asks each flag for its help, and keeps the line breaks."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, max_help_position=28, **kwargs)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.type.help() if isinstance(action.type, Flag) else action.help
        # argparse expands %(default)s and the like.
        return text.replace("%", "%%")

    def _split_lines(self, text: str, width: int) -> list[str]:
        split = super()._split_lines
        return [line for part in text.splitlines() for line in split(part, width)]


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a sentence that names the known word that is most like a wrong one."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {prefix}{close[0]}?" if close else ""


def _from_config(field: dataclasses.Field[Any]) -> Flag:
    """Return a setting's flag. If it is not given, there is no such argument."""
    kinds = {bool: boolean, int: int, float: float}
    kind = kinds.get(field.metadata["kind"], str)
    if field.name in ("data_dir", "encoders"):
        kind = PATH
    choices = field.metadata["choices"]
    if field.name == "model":
        choices = MODELS
    return Flag(
        field.name,
        field.metadata["help"],
        kind,
        default=argparse.SUPPRESS,
        choices=choices,
        shown_default=field.default,
    )


SETTINGS = tuple(map(_from_config, dataclasses.fields(Config)))
RUN = Flag("run", "The folder of a finished run.", PATH)
OUT = Flag("out", "The folder to write to.", PATH)
DATA_DIR = Flag("data_dir", "Where TFDS keeps the run's data set, if it moved.", PATH)
EMPTY = Flag(
    "empty",
    "A modality that a video may lack: zeros stand in for its features.",
    choices=("audio", "visual"),
)
AUDIO_NETWORK = Flag(
    "audio_network",
    "vggish, yamnet, yamnet_scores, or a module's address or folder.",
    shown_default="vggish",
)
AUDIO_WEIGHTS = Flag("audio_weights", "Its module, or VGGish's checkpoint.", PATH)
VGGISH = Flag("vggish", "Short for --audio_weights of vggish.", PATH)
VISUAL_NETWORK = Flag(
    "visual_network",
    "resnet152, resnet152_maps, vgg19, a network of keras.applications, or a module's "
    "address or folder.",
    shown_default="resnet152",
)
VISUAL_WEIGHTS = Flag(
    "visual_weights",
    "A weights file of keras.applications.",
    PATH,
    shown_default=f"{backbones.IMAGENET}, downloaded",
)
VISUAL_PRECISION = Flag(
    "visual_precision",
    "mixed_bfloat16 is faster where the processor has it, and rounds.",
    choices=("float32", "mixed_bfloat16"),
    shown_default="float32",
)
BACKBONES = (
    *(AUDIO_NETWORK, AUDIO_WEIGHTS, VGGISH),
    *(VISUAL_NETWORK, VISUAL_WEIGHTS, VISUAL_PRECISION),
)


def given(args: argparse.Namespace, wanted: Iterable[Flag]) -> dict[str, Any]:
    """Return those of some flags that were given; none of them has a default."""
    values = {flag.name: getattr(args, flag.name, None) for flag in wanted}
    return {name: value for name, value in values.items() if value is not None}


def refuse(args: argparse.Namespace, unread: Iterable[Flag], command: str) -> None:
    """Raise UserError if a flag was given that a command does not read."""
    if ignored := [f"--{name}" for name in given(args, unread)]:
        raise UserError(f"{command} does not read {', '.join(ignored)}.")


def require_run(args: argparse.Namespace, more: str = "") -> None:
    """Raise UserError if --run was not given."""
    if args.run is None:
        message = f"expected --run=DIR, the folder of a finished run{more}."
        raise UserError(f"{args.command}: {message}")
