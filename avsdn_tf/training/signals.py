"""Signals that ask a training to stop: from a person or from a scheduler."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence


class StopRequest:
    """Records the signal that asked for an end.

    Attributes:
        signal: The signal, or None so far.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def is_set(self) -> bool:
        """Whether a signal has asked."""
        return self.signal is not None

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Catch the first SIGTERM or SIGINT; the second one acts as usual."""

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
    """Handle signals inside a block, except those that the process ignores.

    nohup, for example, ignores SIGHUP.

    Args:
        handler: Called with the signal's number, and a function that restores all
            handlers, as the end of the block does.
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
    """A signal stopped a training, whose state is saved.

    Args:
        number: The signal; None if another worker received it.
        message: Where training stopped, and how to resume it.

    Attributes:
        exit_code: 128 and the signal's number, as shells and schedulers expect.
    """

    def __init__(self, number: signal.Signals | None, message: str) -> None:
        who = number.name if number else "a signal to another worker"
        super().__init__(f"Stopped by {who} {message}")
        self.exit_code = 128 + (number or signal.SIGTERM)
