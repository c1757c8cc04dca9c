"""Numbers as a person writes them: durations, shares, counts, names that are too long."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return a duration as a person writes it: 12 ms, 3.4 s, 2 min 05 s, 1 h 20 min."""
    if seconds < 0.9995:
        milliseconds = 1000 * seconds
        return f"{milliseconds:.0f} ms" if milliseconds >= 9.5 else f"{milliseconds:.1f} ms"
    if seconds < 60:
        decimals = 0 if seconds >= 9.95 or seconds == int(seconds) else 1
        return f"{seconds:.{decimals}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def percent(share: float) -> str:
    """Return a share as percent with two digits that count."""
    value = 100 * share
    if value == 0:
        return "0 %"
    if value < 0.01:
        return "under 0.01 %"
    decimals = 0 if value >= 9.5 else 1 if value >= 0.95 else 2
    return f"{value:.{decimals}f} %"


def shortened(text: str, longest: int) -> str:
    """Return `text` with its middle left out if it is longer than `longest`."""
    if len(text) <= longest:
        return text
    head = (longest - 1) * 2 // 3
    return f"{text[:head]}…{text[-(longest - 1 - head) :]}"


def count(value: float | None) -> str:
    """Return a number of frames, with separators."""
    return "–" if value is None else f"{value:,.0f}"


def three_digits(value: float) -> str:
    """Return a number with the three digits that count."""
    if value >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"
