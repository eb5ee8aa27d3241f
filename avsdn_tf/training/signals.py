"""Signals that ask a training to stop: from a person or from a scheduler."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence

from avsdn_tf.training.checkpoints import Checkpoints, Progress


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

        def remember(number: int, restore: Callable[[], None]) -> None:
            self.signal = signal.Signals(number)
            restore()

        with handling(remember):
            yield


@contextlib.contextmanager
def handling(
    handler: Callable[[int, Callable[[], None]], None],
    numbers: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
) -> Iterator[None]:
    """Handles signals, but those that are ignored, as SIGHUP is under nohup.

    Args:
        handler: Called with the number of a signal, and what gives all of them back to
            their handlers of before, as the end of the block does.
        numbers: The signals.
    """
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, old in before.items():
            signal.signal(number, old)

    for number, old in before.items():
        if old != signal.SIG_IGN:
            signal.signal(number, lambda received, _: handler(received, restore))
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
