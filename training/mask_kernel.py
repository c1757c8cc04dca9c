"""In which words the pixels are named that structN2V hides together.

Owns that text and what it stands for: `5x3` is a rectangle of 5 rows and 3 columns, and
`010,111,010` a picture, row by row. A kernel is symmetric under flips, because the noise's
autocorrelation is under a flip of both axes and patches are flipped along each.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from .errors import TrainingError

LARGEST_EDGE = 17
MEASURED = "measured"

Offsets = tuple[tuple[int, int], ...]
"""(rows, columns) from the pixel whose value is to be predicted; itself among them."""


def offsets_of(text: str) -> Offsets:
    """Return the offsets that a text stands for.

    Raises
    ------
    TrainingError
        If it stands for none.
    """
    picture = _picture(text)
    rows, columns = picture.shape
    centre = (rows // 2, columns // 2)
    if rows % 2 == 0 or columns % 2 == 0 or max(rows, columns) > LARGEST_EDGE:
        raise _refused(text, f"{rows}x{columns} pixels")
    if not picture[centre]:
        raise _refused(text, "a 0 in its middle, which is the pixel that is predicted")
    whole = picture | picture[::-1] | picture[:, ::-1] | picture[::-1, ::-1]
    return tuple((int(y) - centre[0], int(x) - centre[1]) for y, x in np.argwhere(whole))


def text_of(hidden: NDArray[np.bool_]) -> str:
    """Return the picture of offsets given as an array with the pixel itself in its middle."""
    reach = [length // 2 for length in hidden.shape]
    far = np.abs(np.argwhere(hidden) - reach).max(axis=0, initial=0)
    inside = tuple(
        slice(middle - extent, middle + extent + 1)
        for middle, extent in zip(reach, far, strict=True)
    )
    return ",".join("".join("01"[int(pixel)] for pixel in row) for row in hidden[inside])


def _picture(text: str) -> NDArray[np.bool_]:
    if rectangle := re.fullmatch(r"(\d{1,2})x(\d{1,2})", text):
        rows, columns = (int(edge) for edge in rectangle.groups())
        if rows and columns:
            return np.ones((rows, columns), dtype=bool)
    lines = text.split(",")
    if re.fullmatch(r"[01,]+", text) and len({len(line) for line in lines}) == 1 and lines[0]:
        return np.array([[pixel == "1" for pixel in line] for line in lines])
    raise _refused(text, "neither")


def _refused(text: str, found: str) -> TrainingError:
    return TrainingError(
        f"mask_kernel is {text!r} ({found}); expected rows x columns such as 5x5, or a picture "
        f"such as 010,111,010, of odd edges up to {LARGEST_EDGE} and with a 1 in its middle; or "
        f"{MEASURED!r}"
    )
