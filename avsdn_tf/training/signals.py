"""Handle signals from users and schedulers that stop a training."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence


class StopRequest:
    """Records a signal that asks training to stop.

    Attributes:
        signal: The received signal, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def is_set(self) -> bool:
        """Whether a signal was received."""
        return self.signal is not None

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Record the first SIGTERM or SIGINT; the second has its default effect."""

        def record(number: int, restore: Callable[[], None]) -> None:
            self.signal = signal.Signals(number)
            restore()

        with handle_signals(record):
            yield


@contextlib.contextmanager
def handle_signals(
    handler: Callable[[int, Callable[[], None]], None],
    numbers: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
) -> Iterator[None]:
    """Handle signals within a block, except ignored ones, such as SIGHUP under nohup.

    Args:
        handler: Called with the signal's number, and with a function that restores all
            previous handlers.
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
    """A signal stopped training, and the state is saved.

    Args:
        number: The signal; None if another worker received it.
        message: Epoch and step at which training stopped, and how to resume it.

    Attributes:
        exit_code: 128 plus the signal's number, as shells and schedulers expect.

    Example:
        >>> import signal
        >>> from avsdn_tf.training.signals import TrainingInterruptedError
        >>> TrainingInterruptedError(signal.SIGTERM, "epoch 3, step 10").exit_code
        143
    """

    def __init__(self, number: signal.Signals | None, message: str) -> None:
        who = number.name if number else "a signal to another worker"
        super().__init__(f"Stopped by {who} {message}")
        self.exit_code = 128 + (number or signal.SIGTERM)
