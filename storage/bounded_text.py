"""Read a text file that may come from anywhere: no pipe, no device, nothing without an end.

Owns the limits before reading. What the text means is the business of who asks.
"""

from __future__ import annotations

from pathlib import Path

LARGEST_TEXT_BYTES = 8 * 2**20
"""A thousand times what any manifest or pointer of ours holds."""


def read_text(path: Path, *, most_bytes: int = LARGEST_TEXT_BYTES) -> str:
    """Return the UTF-8 text of an ordinary file.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no ordinary file (a pipe never ends), larger than `most_bytes`, or no UTF-8; the
        message says which.
    """
    if path.exists() and not path.is_file():
        raise ValueError("is no ordinary file")
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"is larger than {most_bytes / 2**20:g} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is no UTF-8 text (byte {error.start})") from error
