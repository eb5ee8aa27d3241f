"""Signals that ask a training to stop: from a person or from a scheduler."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from avsdn_tf.checkpoints import Checkpoints, Progress

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Remembers the signal that asked for an end.

    Attributes:
        signal: The signal, or None so far.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Catches SIGTERM and SIGINT; the second one acts as usual."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def remember(number: int, frame: FrameType | None) -> None:
            del frame
            self.signal = signal.Signals(number)
            restore()

        for number in _SIGNALS:
            signal.signal(number, remember)
        try:
            yield
        finally:
            restore()


class TrainingInterruptedError(Exception):
    """A training was stopped by a signal, and has been saved.

    Args:
        number: The signal; None if another worker received it.
        progress: How far it is.
        checkpoints: Where it was saved.
    """

    def __init__(
        self,
        number: signal.Signals | None,
        progress: Progress,
        checkpoints: Checkpoints,
    ) -> None:
        who = number.name if number else "a signal to another worker"
        super().__init__(
            f"Stopped by {who} in epoch {progress.epoch}, after step {progress.step}. "
            f"{checkpoints.how_to_go_on()}"
        )
        # What shells and schedulers take as ended by a signal.
        self.exit_code = 128 + (number or signal.SIGTERM)
