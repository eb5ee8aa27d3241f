"""Apply a network to overlapping windows over a video of any length."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np


def stitch(
    outputs_of: Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]],
    chunks: Iterable[tuple[np.ndarray, np.ndarray]],
    window: int = 10,
) -> list[np.ndarray]:
    """Return outputs for the segments of a video, averaged over overlapping windows.

    Each window starts half a window after the previous one; the last window ends with
    the video. A video shorter than a window is one window. Memory for features does
    not grow with the length of the video.

    Args:
        outputs_of: Function that receives the `"audio"` and `"visual"` features of one
            window, and returns the outputs; all arrays are `(1, window, ...)`.
        chunks: Pairs of consecutive audio features `(n, audio_width)` and visual
            features `(n, ...)`; `n` may vary.
        window: Number of segments per window, at least 1. Windows of 1 segment don't
            overlap.

    Returns:
        The outputs for all segments, `(num_segments, ...)` each.

    Raises:
        ValueError: If there is no segment, or `window` is less than 1.
    """
    if window < 1:
        raise ValueError(f"Expected window to be 1 or more. Received: window={window}")
    sums: list[list[np.ndarray]] = []
    counts: list[int] = []
    for start, audio, visual in _windows(chunks, window):
        outputs = outputs_of({"audio": audio[None], "visual": visual[None]})
        by_segment = zip(*(output[0] for output in outputs), strict=True)
        for segment, values in enumerate(by_segment, start):
            if segment == len(sums):
                sums.append([np.zeros_like(value) for value in values])
                counts.append(0)
            for total, value in zip(sums[segment], values, strict=True):
                total += value
            counts[segment] += 1
    totals = map(np.stack, zip(*sums, strict=True))
    return [
        total / np.reshape(counts, (-1, *[1] * (total.ndim - 1))) for total in totals
    ]


def _windows(
    chunks: Iterable[tuple[np.ndarray, np.ndarray]], window: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield every window: index of its first segment, audio and visual features."""
    hop = max(1, window // 2)
    # `audio` and `visual` are buffers, whose first segment is `kept_from`.
    kept_from, start, covered = 0, 0, 0
    audio = visual = None
    for more_audio, more_visual in chunks:
        if audio is None:
            audio, visual = more_audio, more_visual
        else:
            audio = np.concatenate([audio, more_audio])
            visual = np.concatenate([visual, more_visual])
        while start + window <= kept_from + len(audio):
            at = start - kept_from
            yield start, audio[at : at + window], visual[at : at + window]
            covered, start = start + window, start + hop
            # Keep one window before `start`: the last window ends with the video, and
            # may start before `start`.
            drop = max(0, start - window - kept_from)
            audio, visual, kept_from = audio[drop:], visual[drop:], kept_from + drop
    if audio is None or not len(audio):
        raise ValueError("Expected the features of at least one segment. Received none")
    if covered < kept_from + len(audio):
        last = kept_from + max(0, len(audio) - window)
        yield last, audio[-window:], visual[-window:]
